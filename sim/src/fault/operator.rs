//! What operators do while all this goes on: changes of the map, snapshots.

use nacre_proto::ids::{OsdId, SnapId};

use crate::world::World;

impl World {
    pub(super) fn out_or_in(&mut self, osd: OsdId) -> bool {
        let map = self.maps.last();
        let inside = map.inside.contains(&osd);
        if inside && map.inside.len() <= map.pool.size as usize {
            return false;
        }
        self.note(|| format!("{osd} {}", if inside { "out" } else { "in" }));
        self.change(|m| {
            if !m.inside.remove(&osd) {
                m.inside.insert(osd);
            }
        });
        true
    }

    pub(super) fn reweight(&mut self, osd: OsdId) -> bool {
        let w = self.rng.range(30, 100);
        self.note(|| format!("{osd} weighs {w}"));
        self.change(|m| {
            m.weight.insert(osd, w);
        });
        true
    }

    pub(super) fn resize(&mut self) -> bool {
        let base = self.scenario.size;
        let most = self.nodes.len() as u32;
        let size = if self.maps.last().pool.size == base { (base + 1).min(most) } else { base };
        let least = self.rng.range(1, u64::from(base)) as u32;
        let min_size = if self.scenario.loose { least } else { self.scenario.min_size };
        self.note(|| format!("{size} copies, at least {min_size}"));
        self.change(|m| {
            m.pool.size = size;
            m.pool.min_size = min_size;
        });
        true
    }

    pub(super) fn upmap(&mut self) -> bool {
        let pgs = self.maps.last().pgs();
        let Some(&pg) = self.rng.pick(&pgs) else { return false };
        let all: Vec<OsdId> = self.maps.last().inside.iter().copied().collect();
        let size = self.maps.last().pool.size as usize;
        let start = self.rng.below(all.len() as u64) as usize;
        let list: Vec<OsdId> = all.iter().cycle().skip(start).take(size.min(all.len())).copied().collect();
        let clear = self.rng.chance(1, 2);
        self.note(|| format!("pg {pg} by hand to {list:?}, or no longer: {clear}"));
        self.change(|m| {
            if clear {
                m.upmap.remove(&pg);
            } else {
                m.upmap.insert(pg, list);
            }
        });
        true
    }

    pub(super) fn affinity(&mut self, osd: OsdId) -> bool {
        self.note(|| format!("{osd} likes to be primary: changes"));
        self.change(|m| {
            if !m.reluctant.remove(&osd) {
                m.reluctant.insert(osd);
            }
        });
        true
    }

    pub(super) fn snapshot(&mut self) -> bool {
        if !self.scenario.snapshots {
            return false;
        }
        self.change(|m| {
            m.snap_seq = SnapId(m.snap_seq.0 + 1);
            let s = m.snap_seq;
            m.snaps.insert(s);
        });
        true
    }
}
