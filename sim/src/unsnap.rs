//! Snapshots are removed while clients write and read them: their clones are to be trimmed everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use nacre_proto::ids::SnapId;

use crate::world::{Event, World};

impl World {
    /// Removes some of the snapshots with odd numbers; those with even numbers stay for rollbacks.
    pub(crate) fn unsnap(&mut self) {
        if !self.faulty {
            return;
        }
        let odd: Vec<SnapId> = self.maps.last().snaps.iter().copied().filter(|s| s.0 % 2 == 1).collect();
        let gone: BTreeSet<SnapId> = odd.into_iter().filter(|_| self.rng.chance(2, 3)).collect();
        if !gone.is_empty() {
            self.seen("snapshot removed");
            self.note(|| format!("snapshots {gone:?} removed"));
            for s in &gone {
                self.history.removed.insert(*s, self.now);
            }
            self.change(|m| {
                m.snaps.retain(|s| !gone.contains(s));
                m.pool.removed_snaps = Arc::new(m.pool.removed_snaps.union(&gone).copied().collect());
            });
        }
        let pause = self.scenario.span / 3;
        let next = self.rng.range(pause / 10, pause);
        self.after(next, Event::Unsnap);
    }
}
