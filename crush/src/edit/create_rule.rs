//! Makes the rules most pools want: so many copies or shards, each in a failure domain of its own.

use super::{EditError, fit_name};
use crate::model::{CrushMap, ItemId, MAX_RULES, Mode, Rule, RuleId, RuleKind, Step};

/// What a rule is to do.
#[derive(Clone, Copy, Debug)]
pub struct NewRule<'a> {
    /// Its name.
    pub name: &'a str,
    /// The bucket it starts from.
    pub root: &'a str,
    /// The type of which no two copies or shards share one: host, rack, or that of devices.
    pub domain: &'a str,
    /// The class of devices it uses, all if none.
    pub class: Option<&'a str>,
    /// Copies or shards.
    pub kind: RuleKind,
}

/// How often an erasure-coded rule tries: a hole is worse than a slow search.
const ERASURE_TRIES: [Step; 2] = [Step::SetChooseLeafTries(5), Step::SetChooseTries(100)];

impl CrushMap {
    /// Makes a rule with the lowest free number and gives that.
    ///
    /// # Errors
    /// When a name is unknown, the rule's own is taken, or there is nothing below the root to choose.
    pub fn create_rule(&mut self, new: &NewRule<'_>) -> Result<RuleId, EditError> {
        self.change(|map| {
            fit_name(new.name)?;
            if map.rule_id(new.name).is_some() {
                return Err(EditError::NameTaken { name: new.name.to_owned() });
            }
            let id = (0..MAX_RULES).find(|id| !map.rules.contains_key(id)).ok_or(EditError::Full { what: "rule" })?;
            let root = map.wanted_bucket(new.root)?;
            let kind = map.wanted_type(new.domain)?;
            // A class that has no shadow trees yet gets them with the next rebuild; here they must be there.
            let class = new.class.map(|class| map.wanted_class(class)).transpose()?;
            if class.is_some() {
                map.settle()?;
            }
            let shadow = |class| map.shadows.get(&root).and_then(|by_class| by_class.get(&class)).copied();
            let from = match class {
                Some(class) => shadow(class).ok_or_else(|| nothing_below(new))?,
                None => root,
            };
            if !map.holds_domain(from, kind) {
                return Err(nothing_below(new));
            }
            let mode = if new.kind == RuleKind::Erasure { Mode::Indep } else { Mode::Firstn };
            let choose = match kind {
                0 => Step::Choose { mode, num: 0, kind },
                _ => Step::ChooseLeaf { mode, num: 0, kind },
            };
            let tries = if mode == Mode::Indep { &ERASURE_TRIES[..] } else { &[] };
            let steps = tries.iter().copied().chain([Step::Take(from), choose, Step::Emit]).collect();
            let name = new.name.to_owned();
            // The sizes mean nothing here and are what newer releases write.
            let rule = Rule { name, kind: new.kind, ruleset: id as u8, min_size: 1, max_size: 100, steps };
            map.rules.insert(id, rule);
            map.max_rules = map.max_rules.max(id + 1);
            Ok(id)
        })
    }

    /// Whether below a bucket there is one of this type with a device below it.
    fn holds_domain(&self, from: ItemId, kind: u16) -> bool {
        let below = self.post_order([from]).buckets;
        match kind {
            0 => !self.devices_below(from).is_empty(),
            _ => below
                .iter()
                .any(|id| *id != from && self.kind(*id) == Some(kind) && !self.devices_below(*id).is_empty()),
        }
    }
}

fn nothing_below(new: &NewRule<'_>) -> EditError {
    EditError::NothingBelow {
        root: new.root.to_owned(),
        kind: new.domain.to_owned(),
        class: new.class.map(str::to_owned),
    }
}
