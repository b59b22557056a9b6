//! Mapping: from an input to devices, as a rule of a map says.
//!
//! # The algorithm
//! A map is a tree: a root, below it racks, below them hosts, below them devices. A rule is a small program over it:
//! *take* a bucket, *choose* so and so many items of some type below it, perhaps go on from each of them, *emit*. To
//! choose one item the mapper descends from the bucket taken, and in each bucket on its way every item draws a lot: a
//! hash of the input `x`, the item's id and the attempt `r`, scaled by the item's weight. The longest straw wins. Nothing
//! is remembered: who knows the map can compute the place of everything, and since an item's straw depends on nothing but
//! itself, changing one weight moves only what has to move.
//!
//! Several items must differ, and devices can be out. So a choice can fail (the item is taken already, no device below it
//! is in), and is then tried again with another `r`, which draws all lots anew:
//! - **firstn** (replicas): position `rep` starts with `r = rep` and each failure adds one. What cannot be placed is left
//!   out, and later positions move up.
//! - **indep** (erasure-coded shards): all positions are tried in rounds, round `n` with `r = rep + n * positions`. What
//!   cannot be placed is a hole ([`ITEM_NONE`](crate::model::ITEM_NONE)), because position `rep` is shard `rep`.
//!
//! *chooseleaf* chooses buckets of a type (the failure domain) and for each at once a device below it; if there is none,
//! the bucket counts as failed. The [`Tunables`] say how often and in which order to try again. They stand for the
//! improvements of many years, and an old map keeps its old values for ever: each change of them moves data.
//!
//! # What is here
//! - [`Mapper`]: a map compiled into flat arrays. [`Mapper::plan`] picks rule, count and weight set; [`Plan::map`] maps
//!   one input, [`Plan::map_all`] many at once, several times faster.
//! - [`Workspace`]: scratch memory, used again and again; a mapping allocates nothing.
//! - `compile`: checks the map's invariants and lays out the arrays. `rule` runs the program, `choose` holds the five
//!   kinds of bucket. `batch` does what `rule` does for rules of the usual kind, for many inputs abreast, with the vector
//!   kernels of the module `simd`; a single input of such a rule goes that way too.
//!
//! What happens is equal to Ceph's `crush_do_rule` to the bit, its oddities included. Where Ceph would crash or read out of
//! bounds this module refuses the map or picks some item. The one thing it adds is an end: a mapping that has spent
//! [`BUDGET`] items' draws (a rule may ask for two billion tries) stops with what it has.
//!
//! Not here: pgs ([`crate::pg`]), and what the cluster map lays over the result (upmap, affinity, temporary sets).

mod batch;
mod choose;
mod compile;
mod rule;

use batch::{Batch, Choice};
use choose::Permutations;
#[cfg(test)]
pub(crate) use choose::straw2;
pub use compile::MapError;
use compile::{Bucket, View};

use crate::model::{ItemId, RuleId, Step, Tunables, Weight};
pub use crate::simd::Kernel;
use crate::simd::{Jobs, Pool};

/// How many item draws one mapping may cost before it gives up. Rules that can be satisfied need some hundreds.
pub const BUDGET: u32 = 1 << 26;

/// The most positions that can be asked for.
pub const MAX_POSITIONS: u32 = 0xffff;

/// A map in the form that is fast to map with. It does not change; make a new one for each new map.
#[derive(Debug)]
pub struct Mapper {
    /// The buckets in order of their ids from -1 down; a link is an index into this.
    buckets: Vec<Bucket>,
    /// Bucket items one bucket after the other, each bucket padded (see `compile`).
    items: Vec<ItemId>,
    /// For each of `items` the index of the bucket, or [`compile::DEVICE`].
    links: Vec<u32>,
    /// Ids to hash and weights, wherever a [`View`] points.
    pool: Pool,
    kernel: Kernel,
    /// Straws, tree nodes, list sums.
    derived: Vec<u32>,
    /// How each bucket draws without choose_args.
    views: Views,
    /// How each bucket draws with each set of choose_args, in order of their keys.
    arg_views: Vec<(i64, Views)>,
    rules: Vec<(RuleId, Vec<Step>)>,
    tunables: Tunables,
    max_devices: u32,
    budget: u32,
}

/// How all buckets draw, by number.
#[derive(Debug)]
struct Views {
    views: Vec<View>,
    /// Whether a bucket and all below it draw in a way that [`batch`] can do.
    plain: Vec<bool>,
}

/// A rule of a [`Mapper`] with all that stays the same from input to input.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'m> {
    mapper: &'m Mapper,
    steps: &'m [Step],
    views: &'m Views,
    positions: usize,
    /// The rule as a single choice, if it can be made abreast.
    choice: Option<Choice>,
}

/// Scratch memory of a mapping. One is enough for a thread; it adapts to whatever mapper it is used with.
#[derive(Debug, Default)]
pub struct Workspace {
    /// What the rule works on, what the current step makes, the leaves it found, and what was emitted.
    current: Vec<ItemId>,
    next: Vec<ItemId>,
    leaves: Vec<ItemId>,
    result: Vec<ItemId>,
    scratch: Scratch,
    batch: Batch,
    /// Inputs of the chunk that is being mapped, and those of them that turned out hard.
    inputs: Vec<u32>,
    hard: Vec<u32>,
}

/// What drawing one item after the other needs.
#[derive(Debug, Default)]
struct Scratch {
    perms: Permutations,
    jobs: Jobs,
    bounds: Vec<u32>,
}

/// The results of [`Plan::map_all`]: a list for each input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    positions: usize,
    /// `positions` for each input, of which the first `lengths` count.
    items: Vec<ItemId>,
    lengths: Vec<u16>,
}

impl Mappings {
    /// How many inputs were mapped.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The devices of the input at that place, as [`Plan::map`] gives them.
    #[inline]
    pub fn get(&self, at: usize) -> &[ItemId] {
        &self.items[at * self.positions..][..self.lengths[at] as usize]
    }

    /// All lists, in the order of the inputs.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[ItemId]> {
        (0..self.len()).map(|at| self.get(at))
    }
}

impl Mapper {
    /// Limits what a mapping may cost to `draws` instead of [`BUDGET`].
    pub fn with_budget(mut self, draws: u32) -> Mapper {
        self.budget = draws;
        self
    }

    /// Draws with another [`Kernel`] than the best; the results are the same.
    pub fn with_kernel(mut self, kernel: Kernel) -> Mapper {
        self.kernel = kernel;
        self
    }

    /// Prepares to map by `rule` into `positions` places, with the weight set of `args`: a pool's id, or -1 for the
    /// default set. A pool without a set of its own uses the default set, if there is one, as in Ceph.
    pub fn plan(&self, rule: RuleId, positions: u32, args: Option<i64>) -> Result<Plan<'_>, MapError> {
        let at = self.rules.binary_search_by_key(&rule, |&(id, _)| id);
        let at = at.map_err(|_| MapError::UnknownRule { rule })?;
        if positions > MAX_POSITIONS {
            return Err(MapError::TooManyPositions { positions });
        }
        let set = |key: i64| self.arg_views.binary_search_by_key(&key, |&(key, _)| key).ok();
        let views = match args.and_then(|key| set(key).or_else(|| set(-1))) {
            Some(set) => &self.arg_views[set].1,
            None => &self.views,
        };
        let (steps, positions) = (self.rules[at].1.as_slice(), positions as usize);
        let mut plan = Plan { mapper: self, steps, views, positions, choice: None };
        plan.choice = Choice::of(&plan);
        Ok(plan)
    }

    /// Maps one input; [`plan`](Self::plan) and [`Plan::map`] in one call.
    pub fn map_rule<'w>(
        &self,
        rule: RuleId,
        x: u32,
        positions: u32,
        reweights: &[Weight],
        args: Option<i64>,
        workspace: &'w mut Workspace,
    ) -> Result<&'w [ItemId], MapError> {
        Ok(self.plan(rule, positions, args)?.map(x, reweights, workspace))
    }
}

impl Plan<'_> {
    /// The devices of `x`, in order. `reweights` says for each device by its id how much of what is mapped to it it keeps;
    /// a device beyond the end is out.
    ///
    /// By a firstn rule there are as many as could be found; by an indep rule there is a hole where none was.
    pub fn map<'w>(&self, x: u32, reweights: &[Weight], workspace: &'w mut Workspace) -> &'w [ItemId] {
        let mut settled = false;
        if let Some(choice) = &self.choice {
            let Workspace { batch, result, .. } = workspace;
            batch.map(self, choice, &[x], reweights, |_, found| {
                if let Some(found) = found {
                    result.clear();
                    result.extend_from_slice(found);
                    settled = true;
                }
            });
        }
        if !settled {
            rule::run(self, x, reweights, workspace);
        }
        &workspace.result
    }

    /// Maps many inputs, in place of what was in `mappings`. Each list is what [`Plan::map`] gives, several times faster
    /// where the rule is of the usual kind.
    pub fn map_all(
        &self,
        inputs: impl IntoIterator<Item = u32>,
        reweights: &[Weight],
        workspace: &mut Workspace,
        mappings: &mut Mappings,
    ) {
        let Mappings { positions, items, lengths } = mappings;
        *positions = self.positions;
        items.clear();
        lengths.clear();
        let chunk = self.choice.as_ref().map_or(64, batch::chunk);
        let mut inputs = inputs.into_iter();
        loop {
            workspace.inputs.clear();
            workspace.inputs.extend(inputs.by_ref().take(chunk));
            let from = lengths.len();
            let count = workspace.inputs.len();
            if count == 0 {
                break;
            }
            lengths.resize(from + count, 0);
            items.resize((from + count) * self.positions, 0);
            let mut put = |i: usize, found: &[ItemId]| {
                lengths[from + i] = found.len() as u16;
                items[(from + i) * self.positions..][..found.len()].copy_from_slice(found);
            };
            workspace.hard.clear();
            match &self.choice {
                None => workspace.hard.extend(0..count as u32),
                Some(choice) => {
                    let Workspace { batch, inputs, hard, .. } = workspace;
                    batch.map(self, choice, inputs, reweights, |i, found| match found {
                        Some(found) => put(i, found),
                        None => hard.push(i as u32),
                    });
                }
            }
            while let Some(i) = workspace.hard.pop() {
                rule::run(self, workspace.inputs[i as usize], reweights, workspace);
                put(i as usize, &workspace.result);
            }
        }
    }
}

#[cfg(test)]
#[path = "map_test.rs"]
mod tests;
