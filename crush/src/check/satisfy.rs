//! Whether a rule finds as many devices as a pool wants, by mapping inputs, and if not, why, by counting what is there.

use std::collections::BTreeSet;
use std::ops::Range;

use super::rules::of_type_below;
use crate::map::{BUDGET, MapError, Mapper, Workspace};
use crate::model::{BucketAlg, CrushMap, ITEM_NONE, ItemId, Rule, RuleId, Step, TypeId, Weight};

/// A rule that does not always find enough devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The rule.
    pub rule: RuleId,
    /// How many devices were asked for.
    pub positions: u32,
    /// How many inputs were mapped.
    pub inputs: u64,
    /// How many of them came out short or with holes.
    pub short: u64,
    /// The first few of those, with what they came out as.
    pub examples: Vec<(u32, Vec<ItemId>)>,
    /// Why; at least one cause.
    pub causes: Vec<Cause>,
}

/// Why a rule finds too few devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Not enough of a type below a bucket.
    TooFew {
        /// The rule's name.
        rule: String,
        /// How many it wants.
        wanted: u32,
        /// Of what type.
        kind: String,
        /// Below which bucket, with its type.
        below: String,
        /// How many hold weight and have a device that is in.
        usable: u32,
        /// How many there are besides.
        idle: u32,
    },
    /// The rule's own numbers give fewer devices.
    Few {
        /// The rule's name.
        rule: String,
        /// How many it gives at most.
        gives: u32,
        /// How many are asked for.
        wanted: u32,
    },
    /// There is enough of everything, but the tries do not suffice.
    Tries {
        /// The rule's name.
        rule: String,
        /// How many tries it has.
        tries: u32,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::TooFew { rule, wanted, kind, below, usable, idle } => {
                let verb = if *usable == 1 { "is" } else { "are" };
                write!(f, "rule {rule} wants {wanted} {} below {below}, there {verb} {usable}", plural(kind, *wanted))?;
                match idle {
                    0 => Ok(()),
                    _ => write!(f, " ({idle} more hold no weight or no device that is in)"),
                }
            }
            Cause::Few { rule, gives, wanted } => {
                write!(f, "rule {rule} gives {gives} {} at most, {wanted} are asked for", plural("device", *gives))
            }
            Cause::Tries { rule, tries } => write!(
                f,
                "rule {rule} has enough to choose from, but its {tries} tries do not always find it, because weights are \
                 uneven or devices are out; add `step set_choose_tries {}`",
                tries.saturating_mul(2).max(100)
            ),
        }
    }
}

fn plural(word: &str, count: u32) -> String {
    if count == 1 || word.ends_with('s') { word.to_owned() } else { format!("{word}s") }
}

/// How many examples a [`Shortfall`] has at most.
const EXAMPLES: usize = 10;

/// Maps all `inputs` by `rule` into `positions` places and reports if one of them does not fill them. `reweights` says
/// which devices are in; all are, if it is not given.
///
/// # Errors
/// When the map cannot be mapped with, or there is no such rule.
pub fn satisfy(
    map: &CrushMap,
    rule: RuleId,
    positions: u32,
    inputs: Range<u32>,
    reweights: Option<&[Weight]>,
) -> Result<Option<Shortfall>, MapError> {
    let mapper = Mapper::new(map)?.with_budget(patience(map));
    let plan = mapper.plan(rule, positions, None)?;
    let Some(program) = map.rules.get(&rule) else { return Err(MapError::UnknownRule { rule }) };
    let all_in = vec![Weight::ONE; if reweights.is_none() { map.max_devices as usize } else { 0 }];
    let reweights = reweights.unwrap_or(&all_in);
    let mut workspace = Workspace::default();
    let mut shortfall = Shortfall {
        rule,
        positions,
        inputs: u64::from(inputs.end.saturating_sub(inputs.start)),
        short: 0,
        examples: Vec::new(),
        causes: Vec::new(),
    };
    for x in inputs {
        let found = plan.map(x, reweights, &mut workspace);
        let filled = found.iter().filter(|item| **item != ITEM_NONE).count();
        if filled < positions as usize {
            shortfall.short += 1;
            if shortfall.examples.len() < EXAMPLES {
                shortfall.examples.push((x, found.to_vec()));
            }
        }
    }
    if shortfall.short == 0 {
        return Ok(None);
    }
    let name = if program.name.is_empty() { rule.to_string() } else { program.name.clone() };
    shortfall.causes = Count { map, usable: usable(map, reweights), name, positions }.causes(program);
    Ok(Some(shortfall))
}

/// How many draws an input is worth here: 256 times through the whole map finds what sane tries would find, and a rule of
/// endless tries is given up.
fn patience(map: &CrushMap) -> u32 {
    let items: usize = map.buckets.values().map(|bucket| bucket.items.len()).sum();
    u32::try_from(items.saturating_mul(256)).map_or(BUDGET, |draws| draws.clamp(1 << 16, BUDGET))
}

/// The items data can go to: devices that are in, and buckets with one below that has weight all the way.
fn usable(map: &CrushMap, reweights: &[Weight]) -> BTreeSet<ItemId> {
    let is_in = |item: ItemId| reweights.get(item as usize).is_some_and(|weight| *weight > Weight::ZERO);
    let mut usable = BTreeSet::new();
    for id in map.post_order(map.buckets.keys().copied()).buckets {
        let Some(bucket) = map.buckets.get(&id) else { continue };
        for (item, weight) in bucket.items.iter().zip(&bucket.weights) {
            // Uniform buckets do not look at weights.
            let drawn = *weight > Weight::ZERO || bucket.alg == BucketAlg::Uniform;
            let good = if *item >= 0 { is_in(*item) } else { usable.contains(item) };
            if drawn && good {
                usable.insert(*item);
                usable.insert(id);
            }
        }
    }
    usable
}

/// Follows a rule and counts what it may choose from.
struct Count<'a> {
    map: &'a CrushMap,
    usable: BTreeSet<ItemId>,
    name: String,
    positions: u32,
}

impl Count<'_> {
    fn causes(&self, rule: &Rule) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut from: BTreeSet<ItemId> = BTreeSet::new();
        // How many items the rule has in hand, and how many it gave away.
        let (mut held, mut given) = (0_u32, 0_u32);
        let mut tries = self.map.tunables.choose_total_tries;
        for step in &rule.steps {
            match *step {
                Step::Take(item) => (from, held) = (BTreeSet::from([item]), 1),
                Step::SetChooseTries(n) if n > 0 => tries = n as u32,
                Step::Choose { num, kind, .. } | Step::ChooseLeaf { num, kind, .. } => {
                    let leaf = matches!(step, Step::ChooseLeaf { .. });
                    let Some(wanted) = self.wanted(num) else { continue };
                    let chosen = self.choose(&from, wanted, kind, leaf, &mut causes);
                    from = chosen;
                    held = held.saturating_mul(wanted).min(self.positions);
                }
                Step::Emit => {
                    given = given.saturating_add(held).min(self.positions);
                    (from, held) = (BTreeSet::new(), 0);
                }
                _ => {}
            }
        }
        if given < self.positions {
            causes.push(Cause::Few { rule: self.name.clone(), gives: given, wanted: self.positions });
        }
        if causes.is_empty() {
            causes.push(Cause::Tries { rule: self.name.clone(), tries });
        }
        causes
    }

    /// How many a step chooses in each bucket: none if its number comes to nothing, and it is passed over.
    fn wanted(&self, num: i32) -> Option<u32> {
        let wanted = if num > 0 { i64::from(num) } else { i64::from(self.positions) + i64::from(num) };
        u32::try_from(wanted).ok().filter(|wanted| *wanted > 0)
    }

    /// What a step may choose from each of the buckets, noting where that is too little.
    fn choose(
        &self,
        from: &BTreeSet<ItemId>,
        wanted: u32,
        kind: TypeId,
        leaf: bool,
        causes: &mut Vec<Cause>,
    ) -> BTreeSet<ItemId> {
        let wanted = wanted.min(self.positions);
        let mut chosen = BTreeSet::new();
        for start in from {
            let found = of_type_below(self.map, *start, kind);
            let usable: BTreeSet<ItemId> = found.intersection(&self.usable).copied().collect();
            if usable.len() < wanted as usize {
                causes.push(Cause::TooFew {
                    rule: self.name.clone(),
                    wanted,
                    kind: self.map.type_name(kind).into_owned(),
                    below: self.below(*start),
                    usable: usable.len() as u32,
                    idle: (found.len() - usable.len()) as u32,
                });
            }
            chosen.extend(usable);
        }
        if leaf { chosen.iter().flat_map(|item| self.map.devices_below(*item)).collect() } else { chosen }
    }

    /// `root default`, and for a shadow `root default (class ssd)`.
    fn below(&self, item: ItemId) -> String {
        let origins = self.map.shadow_origins();
        match origins.get(&item).and_then(|(original, class)| Some((*original, self.map.classes.get(class)?))) {
            Some((original, class)) => format!("{} (class {class})", super::shown(self.map, original)),
            None => super::shown(self.map, item),
        }
    }
}
