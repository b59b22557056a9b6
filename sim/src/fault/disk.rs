//! Disks that are slow, refuse, rot, or are replaced.
//!
//! What no cluster survives is not done to it: a disk is replaced only while every pg is clean, and blocks of one osd
//! alone rot in a run, with two good copies elsewhere, and no disk replaced afterwards.

use nacre_proto::ids::{OsdId, PgId};
use nacre_store::ObjectStore;

use crate::world::{Event, MS, World};

impl World {
    pub(super) fn slow_disk(&mut self, osd: OsdId) -> bool {
        self.slow.insert(osd, self.now + self.rng.range(100, 1500) * MS);
        true
    }

    /// The next sync fails; the osd stops then, and what it had not synced is lost.
    pub(super) fn failing_disk(&mut self, osd: OsdId) -> bool {
        let node = &self.nodes[osd.0 as usize];
        if node.running {
            node.store.fail_next_commit("the disk refuses to write");
            self.note(|| format!("the next sync of {osd} will fail"));
        }
        self.nodes[osd.0 as usize].running
    }

    /// Every pg is clean by the newest map as its primary sees it, and every member really is there in that interval.
    pub(crate) fn all_clean(&self) -> bool {
        let map = self.maps.last();
        let core = |osd: OsdId, pg: PgId| {
            let node = &self.nodes[osd.0 as usize];
            let here = node.running && node.epoch == map.epoch;
            node.pgs.get(&pg).map(|(_, g)| g).filter(|_| here)
        };
        map.pgs().into_iter().all(|pg| {
            let view = map.view(pg);
            let Some(primary) = view.primary.and_then(|p| core(p, pg)) else { return false };
            let member = |o: &OsdId| {
                core(*o, pg).is_some_and(|g| {
                    g.info().interval == primary.info().interval && matches!(g.state(), "active" | "replica")
                })
            };
            primary.is_clean() && view.acting.iter().all(member)
        })
    }

    pub(super) fn bit_rot(&mut self, osd: OsdId) -> bool {
        let osd = self.rotten.iter().next().map_or(osd, |(o, _, _)| *o);
        let few = self.scenario.min_size < 2 || self.scenario.loose || self.maps.last().pool.size < 3;
        if few || !self.nodes[osd.0 as usize].running || !self.all_clean() {
            return false;
        }
        let node = &self.nodes[osd.0 as usize];
        let pgs: Vec<PgId> = node.pgs.keys().copied().collect();
        let Some(&pg) = self.rng.pick(&pgs) else { return false };
        let list = self.nodes[osd.0 as usize].store.list(pg, None, usize::MAX).unwrap_or_default();
        let Some(oid) = self.rng.pick(&list) else { return false };
        if self.nodes[osd.0 as usize].store.stat(pg, oid).ok().flatten().is_none_or(|s| s.size == 0) {
            return false;
        }
        self.nodes[osd.0 as usize].store.flip_bit(pg, oid, 0);
        self.note(|| format!("a block of {:?}/{} rots at {osd} pg {pg}", oid.name, oid.snap));
        self.rotten.insert((osd, pg, oid.clone()));
        true
    }

    pub(super) fn replace_disk(&mut self, osd: OsdId) -> bool {
        if !self.nodes[osd.0 as usize].running || !self.rotten.is_empty() || !self.all_clean() {
            return false;
        }
        self.crash(osd);
        self.note(|| format!("{osd} gets an empty disk"));
        let node = &mut self.nodes[osd.0 as usize];
        node.store = nacre_store::MemoryStore::default();
        node.newborn = true;
        let away = self.rng.range(5, 3000);
        self.after(away * MS, Event::Restart { osd });
        true
    }
}
