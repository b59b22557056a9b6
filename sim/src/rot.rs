//! Scrubs, and bits that rot. While faults go on, scrubs are ordered and must find nothing: no bit has rotted yet. Once
//! the cluster is healed, blocks of some copies go bad, one copy per object at most; what clients read meanwhile must come
//! from another copy, and a deep scrub must find and repair all that nobody read. Draws from a stream of its own.

use nacre_pg::io::{Input, Order};
use nacre_proto::ids::{OsdId, PgId};
use nacre_store::ObjectStore;

use crate::rng::Rng;
use crate::world::{Event, MS, World};

/// What rots in a run.
#[derive(Debug)]
pub struct Rot {
    rng: Rng,
    /// Blocks that were made bad.
    pub flips: u64,
}

impl Rot {
    /// Of a seed.
    pub fn new(seed: u64) -> Rot {
        Rot { rng: Rng::new(seed ^ 0x726f_7420), flips: 0 }
    }
}

fn primary(w: &World, pg: PgId) -> Option<OsdId> {
    w.maps.last().view(pg).primary
}

impl World {
    /// Orders a scrub of some pg, and the next order.
    pub(crate) fn scrub_work(&mut self) {
        if !self.scenario.scrubs || !self.faulty {
            return;
        }
        let pgs = self.maps.last().pgs();
        let pg = pgs[self.rot.rng.below(pgs.len() as u64) as usize];
        let deep = self.rot.rng.chance(1, 2);
        if let Some(osd) = primary(self, pg) {
            // Mostly by the clock, now and then by an operator who does not wait for a slot.
            let order = if self.rot.rng.chance(3, 4) { Order::ScrubDue { deep } } else { Order::Scrub { deep } };
            self.input(osd, pg, Input::Order(order));
        }
        let delay = self.rot.rng.range(50, 1000) * MS;
        self.after(delay, Event::Scrub);
    }

    /// Orders a deep scrub of everything.
    pub(crate) fn scrub_all(&mut self) {
        for pg in self.maps.last().pgs() {
            if let Some(osd) = primary(self, pg) {
                self.input(osd, pg, Input::Order(Order::Scrub { deep: true }));
            }
        }
    }

    /// Has every pg been scrubbed deeply by its present primary.
    pub(crate) fn is_scrubbed(&self) -> bool {
        let core = |pg: &PgId| primary(self, *pg).and_then(|osd| self.nodes[osd.0 as usize].pgs.get(pg));
        self.maps.last().pgs().iter().all(|pg| core(pg).is_none_or(|(_, g)| g.findings().deep > 0))
    }

    /// Makes blocks bad, and lets connections and processes fail while that is repaired.
    pub(crate) fn rots(&mut self) {
        let map = self.maps.last().clone();
        for pg in map.pgs() {
            let acting = map.view(pg).acting;
            if acting.len() < 2 {
                continue;
            }
            for oid in self.nodes[acting[0].0 as usize].store.list(pg, None, usize::MAX).unwrap_or_default() {
                if self.rotten.iter().any(|(_, _, o)| *o == oid) {
                    continue;
                }
                let osd = acting[self.rot.rng.below(acting.len() as u64) as usize];
                let store = &self.nodes[osd.0 as usize].store;
                let size = store.stat(pg, &oid).ok().flatten().map_or(0, |s| s.size);
                if size > 0 && self.rot.rng.chance(1, 3) {
                    let at = self.rot.rng.below(size);
                    store.flip_bit(pg, &oid, at);
                    if store.read_flat(pg, &oid, 0, size).is_err() {
                        self.rot.flips += 1;
                        self.note(|| format!("{osd} {pg} {:?}/{} rots at {at}", oid.name, oid.snap));
                    }
                }
            }
        }
        if self.rot.rng.chance(1, 2) {
            self.scrub_all();
        }
        if self.rot.rng.chance(1, 3) {
            let osd = OsdId(self.rot.rng.below(self.nodes.len() as u64) as u32);
            self.crash(osd);
            let away = self.rot.rng.range(5, 3000) * MS;
            self.after(away, Event::Restart { osd });
        }
    }
}
