//! An osd's scheduler of recovery: so many slots of a kind, the highest priority first; a much higher one takes a slot
//! from a lower, which then waits again.

use nacre_pg::io::{Input, Request, SlotKind};
use nacre_proto::ids::{OsdId, PgId};

use crate::world::{Event, MS, World};

/// One slot, asked for or held.
#[derive(Clone, Debug)]
pub struct Slot {
    pg: PgId,
    core: u64,
    kind: SlotKind,
    holder: OsdId,
    priority: u8,
    held: bool,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.held { "held" } else { "waited for" };
        write!(f, "{:?} {how} by pg {} for {} at {}", self.kind, self.pg, self.holder, self.priority)
    }
}

/// Slots of each kind.
const SLOTS: usize = 1;

impl World {
    /// A core asks for a slot or gives one back.
    pub(crate) fn slot_asked(&mut self, osd: OsdId, pg: PgId, core: u64, what: &Request) {
        let slots = &mut self.nodes[osd.0 as usize].slots;
        let same = |s: &Slot, k: SlotKind, h: OsdId| s.pg == pg && s.core == core && s.kind == k && s.holder == h;
        match *what {
            Request::Slot { kind, holder, priority } => {
                if slots.iter().any(|s| same(s, kind, holder)) {
                    self.violations.push(format!("{osd} pg {pg}: asks twice for one slot"));
                    return;
                }
                slots.push(Slot { pg, core, kind, holder, priority, held: false });
            }
            Request::Release { kind, holder } => slots.retain(|s| !same(s, kind, holder)),
            _ => return,
        }
        self.give_slots(osd);
    }

    fn give_slots(&mut self, osd: OsdId) {
        let run = self.nodes[osd.0 as usize].run;
        let slots = &mut self.nodes[osd.0 as usize].slots;
        let mut told = Vec::new();
        for kind in [SlotKind::Local, SlotKind::Remote, SlotKind::Scrub] {
            loop {
                let held = slots.iter().filter(|s| s.kind == kind && s.held).count();
                let next = (0..slots.len())
                    .filter(|i| slots[*i].kind == kind && !slots[*i].held)
                    .max_by_key(|i| (slots[*i].priority, std::cmp::Reverse(*i)));
                let Some(next) = next else { break };
                if held >= SLOTS {
                    let least = (0..slots.len())
                        .filter(|i| slots[*i].kind == kind && slots[*i].held)
                        .min_by_key(|i| slots[*i].priority);
                    let Some(least) = least.filter(|l| slots[*l].priority.saturating_add(20) < slots[next].priority)
                    else {
                        break;
                    };
                    slots[least].held = false;
                    told.push(slots[least].clone());
                }
                slots[next].held = true;
                told.push(slots[next].clone());
            }
        }
        for s in told {
            let delay = self.rng.below(MS) + 1;
            self.after(delay, Event::Slot { osd, run, pg: s.pg, core: s.core, kind: s.kind, holder: s.holder });
        }
    }

    /// A core is told how its slot stands now.
    pub(crate) fn slot_told(&mut self, osd: OsdId, run: u64, pg: PgId, core: u64, kind: SlotKind, holder: OsdId) {
        let node = &self.nodes[osd.0 as usize];
        if node.run != run || node.pgs.get(&pg).is_none_or(|(c, _)| *c != core) {
            return;
        }
        let slot = node.slots.iter().find(|s| s.pg == pg && s.core == core && s.kind == kind && s.holder == holder);
        if let Some(granted) = slot.map(|s| s.held) {
            self.input(osd, pg, Input::Slot { kind, holder, granted });
        }
    }
}
