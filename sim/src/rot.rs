//! Scrubs, and bits that rot. While faults go on, scrubs are ordered and must find nothing: no bit has rotted yet. Once
//! the cluster is healed, blocks of some copies go bad, one copy per object at most; what clients read meanwhile must come
//! from another copy, and a deep scrub must find and repair all that nobody read. Draws from a stream of its own.

use std::collections::BTreeMap;

use nacre_pg::io::{Input, Order};
use nacre_proto::ids::{Epoch, OsdId, PgId};
use nacre_store::ObjectStore;

use crate::rng::Rng;
use crate::world::{Event, MS, World};

/// What rots in a run.
#[derive(Debug)]
pub struct Rot {
    rng: Rng,
    /// Blocks that were made bad.
    pub flips: u64,
    /// Deep scrubs of everything that were ordered last, not all of them carried through.
    ordered: BTreeMap<PgId, Ordered>,
}

/// To whom an order was given, and how many deep scrubs that one had carried through before.
#[derive(Clone, Copy, Debug)]
struct Ordered {
    osd: OsdId,
    core: u64,
    deep: u64,
    epoch: Epoch,
}

impl Rot {
    /// Of a seed.
    pub fn new(seed: u64) -> Rot {
        Rot { rng: Rng::new(seed ^ 0x726f_7420), flips: 0, ordered: BTreeMap::new() }
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
            let Some(osd) = primary(self, pg) else { continue };
            let epoch = self.maps.last().epoch;
            if let Some((core, g)) = self.nodes[osd.0 as usize].pgs.get(&pg) {
                self.rot.ordered.insert(pg, Ordered { osd, core: *core, deep: g.findings().deep, epoch });
            }
            self.input(osd, pg, Input::Order(Order::Scrub { deep: true }));
        }
    }

    /// Pgs without a deep scrub carried through since the last order: the order went with the process or the office of its
    /// primary. That it is forgotten for any other reason is a violation.
    pub(crate) fn unscrubbed(&mut self) -> Vec<PgId> {
        let mut out = Vec::new();
        for pg in self.maps.last().pgs() {
            let Some(o) = self.rot.ordered.get(&pg).copied() else {
                out.push(pg);
                continue;
            };
            let core = self.nodes[o.osd.0 as usize].pgs.get(&pg).filter(|(core, _)| *core == o.core);
            if core.is_some_and(|(_, g)| g.findings().deep > o.deep) {
                continue;
            }
            let led = (o.epoch.0..=self.maps.last().epoch.0)
                .all(|e| self.maps.get(Epoch(e)).is_some_and(|m| m.view(pg).primary == Some(o.osd)));
            if led && core.is_some() {
                self.violations.push(format!(
                    "{} pg {pg}: leads it since a deep scrub was ordered at {}, and has forgotten that",
                    o.osd, o.epoch
                ));
            }
            out.push(pg);
        }
        out
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
