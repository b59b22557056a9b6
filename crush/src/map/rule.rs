//! Running a rule: its steps, and the two ways to choose several items.
//!
//! Integer widths and the order of checks follow Ceph where they can be seen in a result.

use super::choose::UNDECIDED;
use super::compile::DEVICE;
use super::{Mapper, Plan, Scratch, Workspace};
use crate::hash::hash2;
use crate::model::{BucketAlg, ITEM_NONE, ItemId, Mode, Step, TypeId, Weight};

/// Runs the plan's rule for `x` and leaves what it emits in `workspace.result`.
pub(super) fn run(plan: &Plan<'_>, x: u32, reweights: &[Weight], workspace: &mut Workspace) {
    let Workspace { current, next, leaves, result, scratch, .. } = workspace;
    current.clear();
    result.clear();
    scratch.perms.begin(plan.mapper.items.len());
    let mut run = Run { plan, x, reweights, scratch, tries: Tries::new(plan.mapper), budget: plan.mapper.budget };
    for &step in plan.steps {
        match step {
            Step::Noop => {}
            Step::Take(item) if plan.mapper.knows(item) => {
                current.clear();
                current.push(item);
            }
            // Ceph passes over what cannot be taken and goes on with what it has.
            Step::Take(_) => {}
            Step::Emit => {
                let room = plan.positions - result.len();
                result.extend(current.drain(..).take(room));
            }
            Step::Choose { mode, num, kind } => {
                if !current.is_empty() {
                    run.choose(mode, num, kind, current, next, None);
                    std::mem::swap(current, next);
                }
            }
            Step::ChooseLeaf { mode, num, kind } => {
                if !current.is_empty() {
                    run.choose(mode, num, kind, current, next, Some(leaves));
                    std::mem::swap(current, leaves);
                }
            }
            other => run.tries.set(other),
        }
    }
}

/// The tunables as the rule's `set_*` steps leave them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    pub(super) total: u32,
    /// 0: not set.
    pub(super) leaf: u32,
    pub(super) local: u32,
    pub(super) fallback: u32,
    pub(super) vary_r: u32,
    pub(super) stable: bool,
    pub(super) descend_once: bool,
}

impl Tries {
    pub(super) fn new(mapper: &Mapper) -> Tries {
        let tunables = &mapper.tunables;
        Tries {
            // The tunable once counted retries; it still does.
            total: tunables.choose_total_tries.saturating_add(1),
            leaf: 0,
            local: tunables.choose_local_tries,
            fallback: tunables.choose_local_fallback_tries,
            vary_r: tunables.chooseleaf_vary_r.into(),
            stable: tunables.chooseleaf_stable != 0,
            descend_once: tunables.chooseleaf_descend_once != 0,
        }
    }

    /// Takes over a `set_*` step. What is out of range has no effect.
    pub(super) fn set(&mut self, step: Step) {
        let above_zero = |value: i32, what: &mut u32| *what = if value > 0 { value as u32 } else { *what };
        let from_zero = |value: i32, what: &mut u32| *what = if value >= 0 { value as u32 } else { *what };
        match step {
            Step::SetChooseTries(value) => above_zero(value, &mut self.total),
            Step::SetChooseLeafTries(value) => above_zero(value, &mut self.leaf),
            Step::SetChooseLocalTries(value) => from_zero(value, &mut self.local),
            Step::SetChooseLocalFallbackTries(value) => from_zero(value, &mut self.fallback),
            Step::SetChooseLeafVaryR(value) => from_zero(value, &mut self.vary_r),
            Step::SetChooseLeafStable(value) if value >= 0 => self.stable = value > 0,
            _ => {}
        }
    }

    /// How often a firstn descent below a bucket already chosen is tried.
    pub(super) fn leaf_firstn(&self) -> u32 {
        match self.leaf {
            0 if self.descend_once => 1,
            0 => self.total,
            set => set,
        }
    }

    /// What a firstn descent below a bucket chosen at attempt `r` starts with.
    pub(super) fn parent_r(&self, r: u32) -> u32 {
        match self.vary_r {
            0 => 0,
            // Ceph shifts an int, and the processor takes the distance modulo 32.
            vary_r => (r as i32).wrapping_shr(vary_r - 1) as u32,
        }
    }

    /// How often an indep descent below a bucket already chosen is tried.
    pub(super) fn leaf_indep(&self) -> u32 {
        self.leaf.max(1)
    }
}

impl Mapper {
    /// The number of the bucket with this id.
    pub(super) fn find(&self, id: ItemId) -> Option<u32> {
        // From -1 downwards, hence the turned comparison.
        self.buckets.binary_search_by(|bucket| id.cmp(&bucket.id)).ok().map(|n| n as u32)
    }

    fn knows(&self, item: ItemId) -> bool {
        match u32::try_from(item) {
            Ok(device) => device < self.max_devices,
            Err(_) => self.find(item).is_some(),
        }
    }
}

/// How a search for one position of an indep choice ended.
enum Sought {
    Found(ItemId),
    /// Try again in the next round.
    Failed,
    /// The descent went past the wanted type: no round will do better.
    Never,
}

/// One run of a rule.
struct Run<'r> {
    plan: &'r Plan<'r>,
    x: u32,
    reweights: &'r [Weight],
    scratch: &'r mut Scratch,
    tries: Tries,
    budget: u32,
}

impl Run<'_> {
    /// One choose step: for each item of `from` as many as it says, all one after the other in `out`. With `leaves`, the
    /// device found below each goes there.
    fn choose(
        &mut self,
        mode: Mode,
        num: i32,
        kind: TypeId,
        from: &[ItemId],
        out: &mut Vec<ItemId>,
        mut leaves: Option<&mut Vec<ItemId>>,
    ) {
        let positions = self.plan.positions;
        out.clear();
        out.resize(positions, UNDECIDED);
        if let Some(leaves) = leaves.as_deref_mut() {
            leaves.clear();
            leaves.resize(positions, UNDECIDED);
        }
        let mut filled = 0;
        for &item in from {
            // Up to i32::MAX and at least 1.
            let num = if num > 0 { num } else { num.saturating_add(positions as i32) };
            // An item that is no bucket: a device, or a hole of an earlier step.
            let Some(root) = self.plan.mapper.find(item) else { continue };
            if num <= 0 {
                continue;
            }
            let room = positions - filled;
            let leaves = leaves.as_deref_mut().map(|leaves| &mut leaves[filled..]);
            filled += match mode {
                Mode::Firstn => self.firstn(root, num, kind, &mut out[filled..], leaves),
                Mode::Indep => {
                    let count = room.min(num as usize);
                    let leaves = leaves.map(|leaves| &mut leaves[..count]);
                    self.indep(root, num, kind, &mut out[filled..filled + count], leaves);
                    count
                }
            };
        }
        out.truncate(filled);
        if let Some(leaves) = leaves {
            leaves.truncate(filled);
        }
    }

    /// Fills `out` from the front with up to `num` different items of a type, and gives how many.
    fn firstn(
        &mut self,
        root: u32,
        num: i32,
        kind: TypeId,
        out: &mut [ItemId],
        mut leaves: Option<&mut [ItemId]>,
    ) -> usize {
        let mut placed = 0;
        let tries = self.tries.total;
        for rep in 0..num as u32 {
            if placed == out.len() || self.budget == 0 {
                break;
            }
            let (taken, free) = out.split_at_mut(placed);
            if let Some(item) = self.place(root, kind, rep, tries, taken, leaves.as_deref_mut()) {
                free[0] = item;
                placed += 1;
            }
        }
        placed
    }

    /// One position of a firstn choice: an item of the type that is not `taken`. `first` is the attempt's number, to which
    /// failures are added. With `leaves` also finds a device below it that is not among the first leaves, and puts it
    /// behind them.
    fn place(
        &mut self,
        root: u32,
        kind: TypeId,
        first: u32,
        tries: u32,
        taken: &[ItemId],
        mut leaves: Option<&mut [ItemId]>,
    ) -> Option<ItemId> {
        let mapper = self.plan.mapper;
        let position = taken.len();
        let mut failed = 0_u32;
        loop {
            let mut n = root;
            // Failures since the last start from the root: what the old local retries go by.
            let mut failed_here = 0_u32;
            loop {
                let size = mapper.buckets[n as usize].size;
                self.spend(size)?;
                let mut collides = false;
                if size > 0 {
                    let r = first.wrapping_add(failed);
                    let permute =
                        self.tries.fallback > 0 && failed_here >= size / 2 && failed_here > self.tries.fallback;
                    let at = if permute {
                        let bucket = &mapper.buckets[n as usize];
                        bucket.start as usize + self.scratch.perms.choose(bucket, self.x, r)
                    } else {
                        mapper.choose(&self.plan.views.views, n, self.x, r, position, self.scratch)
                    };
                    let (item, link) = (mapper.items[at], mapper.links[at]);
                    if mapper.kind(link) != kind {
                        if link == DEVICE {
                            return None;
                        }
                        n = link;
                        continue;
                    }
                    collides = taken.contains(&item);
                    if !collides && self.settles(item, link, r, position, leaves.as_deref_mut()) {
                        return Some(item);
                    }
                }
                failed = failed.saturating_add(1);
                failed_here = failed_here.saturating_add(1);
                let again_here = (collides && failed_here <= self.tries.local)
                    || (self.tries.fallback > 0 && failed_here <= size.saturating_add(self.tries.fallback));
                if !again_here {
                    break;
                }
            }
            if failed >= tries {
                return None;
            }
        }
    }

    /// Whether a firstn item can stay: a device must not be out, and with `leaves` a device must be found below it.
    fn settles(&mut self, item: ItemId, link: u32, r: u32, position: usize, leaves: Option<&mut [ItemId]>) -> bool {
        if let Some(leaves) = leaves {
            let leaf = if link == DEVICE {
                item
            } else {
                let parent_r = self.tries.parent_r(r);
                let rep = if self.tries.stable { 0 } else { position as u32 };
                let tries = self.tries.leaf_firstn();
                match self.place(link, 0, rep.wrapping_add(parent_r), tries, &leaves[..position], None) {
                    Some(leaf) => leaf,
                    None => return false,
                }
            };
            leaves[position] = leaf;
        }
        link != DEVICE || !is_out(self.x, item, self.reweights)
    }

    /// Fills each place of `out` with a different item of a type, or a hole. `num` counts the positions of the whole
    /// choice and is at least `out.len()`.
    fn indep(&mut self, root: u32, num: i32, kind: TypeId, out: &mut [ItemId], mut leaves: Option<&mut [ItemId]>) {
        let mut left = out.len();
        for round in 0..self.tries.total {
            if left == 0 || self.budget == 0 {
                break;
            }
            for rep in 0..out.len() {
                if out[rep] != UNDECIDED {
                    continue;
                }
                let leaf = leaves.as_deref_mut().map(|leaves| &mut leaves[rep]);
                match self.seek(root, kind, rep as u32, round, num as u32, rep, out, leaf) {
                    Sought::Failed => continue,
                    Sought::Found(item) => out[rep] = item,
                    Sought::Never => {
                        out[rep] = ITEM_NONE;
                        if let Some(leaves) = leaves.as_deref_mut() {
                            leaves[rep] = ITEM_NONE;
                        }
                    }
                }
                left -= 1;
            }
        }
        // A leaf can be left over from an item that was out itself; Ceph hands it on, so it stays.
        let leaves = leaves.unwrap_or_default();
        out.iter_mut().chain(leaves).filter(|item| **item == UNDECIDED).for_each(|item| *item = ITEM_NONE);
    }

    /// One descent of an indep choice for position `rep`. `base` is the attempt's number in round 0.
    #[expect(clippy::too_many_arguments, reason = "the state of one descent; a struct would only rename it")]
    fn seek(
        &mut self,
        root: u32,
        kind: TypeId,
        base: u32,
        round: u32,
        num: u32,
        rep: usize,
        taken: &[ItemId],
        leaf: Option<&mut ItemId>,
    ) -> Sought {
        let mapper = self.plan.mapper;
        let mut n = root;
        loop {
            let r = base.wrapping_add(mapper.stride(n, num).wrapping_mul(round));
            let size = mapper.buckets[n as usize].size;
            // A bucket without items costs too: rules can ask to try two billion times.
            if self.spend(size).is_none() || size == 0 {
                return Sought::Failed;
            }
            // Weight sets by position look at the first position of the choice, not at this one.
            let at = mapper.choose(&self.plan.views.views, n, self.x, r, 0, self.scratch);
            let (item, link) = (mapper.items[at], mapper.links[at]);
            if mapper.kind(link) != kind {
                if link == DEVICE {
                    return Sought::Never;
                }
                n = link;
                continue;
            }
            if taken.contains(&item) {
                return Sought::Failed;
            }
            if let Some(leaf) = leaf {
                *leaf = if link == DEVICE { item } else { self.seek_leaf(link, r, num, rep) };
                if *leaf == ITEM_NONE {
                    return Sought::Failed;
                }
            }
            if link == DEVICE && is_out(self.x, item, self.reweights) {
                return Sought::Failed;
            }
            return Sought::Found(item);
        }
    }

    /// A device below the bucket chosen for position `rep` at attempt `parent_r`, or a hole.
    fn seek_leaf(&mut self, root: u32, parent_r: u32, num: u32, rep: usize) -> ItemId {
        let mapper = self.plan.mapper;
        let base = parent_r.wrapping_add(rep as u32);
        for round in 0..self.tries.leaf_indep() {
            let mut n = root;
            loop {
                let r = base.wrapping_add(mapper.stride(n, num).wrapping_mul(round));
                let size = mapper.buckets[n as usize].size;
                if self.spend(size).is_none() {
                    return ITEM_NONE;
                }
                if size == 0 {
                    break;
                }
                let at = mapper.choose(&self.plan.views.views, n, self.x, r, rep, self.scratch);
                if mapper.links[at] != DEVICE {
                    n = mapper.links[at];
                    continue;
                }
                if is_out(self.x, mapper.items[at], self.reweights) {
                    break;
                }
                return mapper.items[at];
            }
        }
        ITEM_NONE
    }

    /// Pays for a draw of `size` items; `None` when nothing is left.
    fn spend(&mut self, size: u32) -> Option<()> {
        self.budget = self.budget.saturating_sub(size.max(1));
        (self.budget > 0).then_some(())
    }
}

impl Mapper {
    /// The type of an item by its link.
    pub(super) fn kind(&self, link: u32) -> TypeId {
        if link == DEVICE { 0 } else { self.buckets[link as usize].kind }
    }

    /// How far attempts of one position lie apart from round to round. A uniform bucket whose size the stride divides
    /// would give each position the same few items again and again.
    fn stride(&self, n: u32, num: u32) -> u32 {
        let bucket = &self.buckets[n as usize];
        let divides = bucket.alg == BucketAlg::Uniform && bucket.size.is_multiple_of(num);
        num + u32::from(divides)
    }
}

/// Whether a device that was drawn is out for this input, wholly or for the share its reweight takes away.
#[inline]
pub(super) fn is_out(x: u32, device: ItemId, reweights: &[Weight]) -> bool {
    match reweights.get(device as usize) {
        None | Some(&Weight::ZERO) => true,
        Some(&weight) if weight >= Weight::ONE => false,
        Some(&weight) => hash2(x, device as u32) & 0xffff >= weight.0,
    }
}
