//! How much recovery, backfill and scrub this OSD takes part in at a time, over all its groups: so many slots of a kind,
//! the highest priority first; a much higher one takes a slot from a lower, which then waits again.
//!
//! Invariants: of no kind are more slots held than its limit, but for those that were held when the limit fell; who asks
//! is given a slot in the end, unless it lets go first; a core that is dropped holds none.

use std::cmp::Reverse;

use nacre_pg::io::SlotKind;
use nacre_proto::ids::{OsdId, PgId};

/// By how much more urgent one must be to take a slot that is held.
const MUCH: u8 = 20;

/// One slot, asked for or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub(crate) pg: PgId,
    pub(crate) core: u64,
    pub(crate) kind: SlotKind,
    pub(crate) holder: OsdId,
    pub(crate) held: bool,
    priority: u8,
}

/// Those of an OSD.
#[derive(Debug)]
pub(crate) struct Slots {
    /// By kind: local, remote, scrub.
    limits: [usize; 3],
    all: Vec<Slot>,
}

impl Slots {
    pub(crate) fn new(limits: [usize; 3]) -> Slots {
        Slots { limits, all: Vec::new() }
    }

    /// Other limits. A slot that is held is not taken back for that.
    pub(crate) fn limit(&mut self, limits: [usize; 3]) -> Vec<Slot> {
        self.limits = limits;
        self.give()
    }

    /// A core asks. The answer is who is to be told that it has a slot now, or has it no longer.
    pub(crate) fn ask(&mut self, pg: PgId, core: u64, kind: SlotKind, holder: OsdId, priority: u8) -> Vec<Slot> {
        self.all.retain(|slot| !(slot.pg == pg && slot.core == core && slot.kind == kind && slot.holder == holder));
        self.all.push(Slot { pg, core, kind, holder, priority, held: false });
        self.give()
    }

    /// A core needs a slot no more, or the question for it is void.
    pub(crate) fn release(&mut self, pg: PgId, core: u64, kind: SlotKind, holder: OsdId) -> Vec<Slot> {
        self.all.retain(|slot| !(slot.pg == pg && slot.core == core && slot.kind == kind && slot.holder == holder));
        self.give()
    }

    /// A core is no more.
    pub(crate) fn dropped(&mut self, pg: PgId, core: u64) -> Vec<Slot> {
        self.all.retain(|slot| !(slot.pg == pg && slot.core == core));
        self.give()
    }

    fn give(&mut self) -> Vec<Slot> {
        let mut told = Vec::new();
        for (kind, limit) in [SlotKind::Local, SlotKind::Remote, SlotKind::Scrub].into_iter().zip(self.limits) {
            loop {
                let of = |held: bool| {
                    self.all.iter().enumerate().filter(move |(_, slot)| slot.kind == kind && slot.held == held)
                };
                let Some((next, wants)) = of(false).max_by_key(|(at, slot)| (slot.priority, Reverse(*at))) else {
                    break;
                };
                if of(true).count() >= limit {
                    let least = of(true).min_by_key(|(_, slot)| slot.priority);
                    let Some((least, _)) =
                        least.filter(|(_, slot)| limit > 0 && slot.priority.saturating_add(MUCH) < wants.priority)
                    else {
                        break;
                    };
                    self.all[least].held = false;
                    told.push(self.all[least].clone());
                }
                self.all[next].held = true;
                told.push(self.all[next].clone());
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use nacre_pg::io::SlotKind::{Local, Remote, Scrub};
    use nacre_proto::ids::{OsdId, PgId, PoolId};

    use super::{Slot, Slots};

    const ME: OsdId = OsdId(0);

    fn pg(seed: u32) -> PgId {
        PgId { pool: PoolId(1), seed }
    }

    fn seeds(told: &[Slot]) -> Vec<(u32, bool)> {
        told.iter().map(|slot| (slot.pg.seed, slot.held)).collect()
    }

    #[test]
    fn the_most_urgent_is_served_first_and_takes_from_the_least() {
        let mut slots = Slots::new([1, 1, 1]);
        assert_eq!(seeds(&slots.ask(pg(1), 1, Local, ME, 100)), [(1, true)]);
        assert_eq!(seeds(&slots.ask(pg(2), 1, Local, ME, 110)), []);
        assert_eq!(seeds(&slots.ask(pg(3), 1, Local, ME, 130)), [(1, false), (3, true)]);
        assert_eq!(seeds(&slots.release(pg(3), 1, Local, ME)), [(2, true)]);
        assert_eq!(seeds(&slots.release(pg(2), 1, Local, ME)), [(1, true)]);
    }

    #[test]
    fn kinds_and_holders_are_counted_apart_and_a_dropped_core_holds_none() {
        let mut slots = Slots::new([1, 2, 1]);
        assert_eq!(seeds(&slots.ask(pg(1), 1, Local, ME, 100)), [(1, true)]);
        assert_eq!(seeds(&slots.ask(pg(1), 1, Remote, OsdId(7), 100)), [(1, true)]);
        assert_eq!(seeds(&slots.ask(pg(1), 1, Remote, OsdId(8), 100)), [(1, true)]);
        assert_eq!(seeds(&slots.ask(pg(2), 1, Remote, OsdId(7), 100)), []);
        assert_eq!(seeds(&slots.ask(pg(2), 1, Scrub, ME, 1)), [(2, true)]);
        assert_eq!(seeds(&slots.dropped(pg(1), 1)), [(2, true)]);
    }

    #[test]
    fn without_a_limit_above_zero_nobody_is_served_until_it_rises() {
        let mut slots = Slots::new([0, 0, 0]);
        assert_eq!(seeds(&slots.ask(pg(1), 1, Remote, ME, 250)), []);
        assert_eq!(seeds(&slots.limit([1, 1, 1])), [(1, true)]);
        // Lowering takes nothing away, but gives nothing new.
        assert_eq!(seeds(&slots.limit([0, 0, 0])), []);
        assert_eq!(seeds(&slots.ask(pg(2), 1, Remote, ME, 250)), []);
    }
}
