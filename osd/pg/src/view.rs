//! What a placement group sees of the cluster map, as plain data, and the history of its intervals computed from it.
//! How pgs come to OSDs is not decided here.
//!
//! Invariants of [`PastIntervals`]: in the order of their ends, all before the present interval; only intervals which
//! could have taken writes are kept; those of one acting set are one entry, from the first to the last of them, unless a
//! disk of the set was replaced or given up between. So its length is bounded by the number of *different* acting sets
//! since the pg was last clean, not by the number of map changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, PgId, SnapId};

use crate::codec_struct;

/// What the map says about one OSD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsdSight {
    /// Serving.
    pub up: bool,
    /// The epoch in which its present (or last) run began.
    pub up_from: Epoch,
    /// It was the live primary of some interval at least up to here.
    pub up_thru: Epoch,
    /// Its process is known to be gone (connection refused, or a new run has begun): it can answer no read any more.
    pub dead: bool,
    /// The epoch its disk was first used: whatever the number held before is gone.
    pub born: Epoch,
    /// The operator declared what it held up to here as lost.
    pub lost_at: Epoch,
    /// Too full to take writes of clients.
    pub full: bool,
}

/// The rules of the pool that shape a pg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRules {
    /// Copies wanted.
    pub size: u32,
    /// Copies needed to take operations.
    pub min_size: u32,
    /// How many pgs the pool has.
    pub pg_num: u32,
    /// Snapshots that were removed and whose clones are to be trimmed.
    pub removed_snaps: Arc<BTreeSet<SnapId>>,
    /// Its quota is used up, or its devices are.
    pub full: bool,
}

/// One pg in one epoch of the cluster map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The epoch.
    pub epoch: Epoch,
    /// Where placement wants it, primary first unless affinity says otherwise.
    pub up: Vec<OsdId>,
    /// The primary of `up`.
    pub up_primary: Option<OsdId>,
    /// Who serves it: `up`, or a temporary set.
    pub acting: Vec<OsdId>,
    /// Who orders its operations.
    pub primary: Option<OsdId>,
    /// The pool's rules.
    pub pool: PoolRules,
    /// Every OSD the map knows, shared by the pgs of one epoch.
    pub osds: Arc<BTreeMap<OsdId, OsdSight>>,
}

impl View {
    /// What the map says of an OSD; one it does not know is down.
    pub fn osd(&self, id: OsdId) -> OsdSight {
        self.osds.get(&id).copied().unwrap_or_default()
    }

    /// Is there no room for what clients would add: in the pool, or at someone who has to hold it.
    pub fn is_full(&self) -> bool {
        self.pool.full || self.acting.iter().any(|&o| self.osd(o).full)
    }

    /// An interval ends where this is false. A member that restarted counts even if its absence fell between epochs.
    pub fn same_interval(&self, next: &View) -> bool {
        self.up == next.up
            && self.acting == next.acting
            && self.primary == next.primary
            && self.up_primary == next.up_primary
            && self.pool.size == next.pool.size
            && self.pool.min_size == next.pool.min_size
            && self.pool.pg_num == next.pool.pg_num
            && self.up.iter().chain(&self.acting).all(|&o| self.osd(o).up_from == next.osd(o).up_from)
    }

    /// Members of up or acting.
    pub fn has(&self, osd: OsdId) -> bool {
        self.up.contains(&osd) || self.acting.contains(&osd)
    }
}

/// Which pg of a pool a hash falls into. Equal to Ceph's `ceph_stable_mod`, so that doubling splits each pg in two.
pub fn pg_of_hash(hash: u32, pg_num: u32) -> u32 {
    let mask = pg_num.next_power_of_two().max(1) - 1;
    if hash & mask < pg_num { hash & mask } else { hash & (mask >> 1) }
}

/// The children that `parent` gives birth to when `old` pgs become `new`.
pub fn split_children(parent: PgId, old: u32, new: u32) -> Vec<PgId> {
    (old..new).filter(|&seed| pg_of_hash(seed, old) == parent.seed).map(|seed| PgId { seed, ..parent }).collect()
}

/// One past interval which could have taken writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastInterval {
    /// Its first epoch.
    pub first: Epoch,
    /// Its last epoch.
    pub last: Epoch,
    /// Who served.
    pub acting: BTreeSet<OsdId>,
}
codec_struct!(PastInterval { first, last, acting });

/// The intervals since the pg was last clean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastIntervals {
    list: Vec<PastInterval>,
}
codec_struct!(PastIntervals { list });

impl PastIntervals {
    /// Notes the end of the interval that began at `first` and whose last epoch `last` shows. It is kept only if it
    /// could have gone active: enough members, and the map proves that its primary lived into it (up_thru).
    pub fn close(&mut self, first: Epoch, last: &View) {
        let Some(primary) = last.primary else { return };
        let sight = last.osd(primary);
        let could_write = last.acting.len() >= last.pool.min_size as usize
            && !last.acting.is_empty()
            && sight.up_from <= first
            && sight.up_thru >= first;
        if !could_write {
            return;
        }
        let acting: BTreeSet<OsdId> = last.acting.iter().copied().collect();
        // Not merged over the change or the loss of a disk: what it held before is not what it holds after.
        let same = |i: &PastInterval| {
            i.acting == acting && acting.iter().all(|&o| last.osd(o).born <= i.first && last.osd(o).lost_at <= i.last)
        };
        let at = self.list.iter().rposition(same);
        let first = at.map_or(first, |at| self.list.remove(at).first);
        self.list.push(PastInterval { first, last: last.epoch, acting });
    }

    /// The intervals, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &PastInterval> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets what ended before `clean`.
    pub fn forget_before(&mut self, clean: Epoch) {
        self.list.retain(|i| i.last >= clean);
    }
}

/// Whom a new primary must hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorSet {
    /// All who are up and may know something.
    pub probe: BTreeSet<OsdId>,
    /// If not empty, an interval which may hold acknowledged writes has no survivor: these are waited for.
    pub blocked_by: BTreeSet<OsdId>,
}

impl PriorSet {
    /// From the present view, and the past since the last start the pg knows of.
    pub fn build(view: &View, past: &PastIntervals, last_started: Epoch) -> PriorSet {
        let mut out = PriorSet::default();
        for osd in view.up.iter().chain(&view.acting) {
            if view.osd(*osd).up {
                out.probe.insert(*osd);
            }
        }
        for interval in past.iter() {
            let mut survivor = false;
            let mut down = BTreeSet::new();
            for &osd in &interval.acting {
                let sight = view.osd(osd);
                // A disk that was born later, or was given up, holds nothing of that interval: neither help nor hope.
                if sight.born > interval.first || sight.lost_at > interval.last {
                    continue;
                }
                if sight.up {
                    survivor = true;
                    out.probe.insert(osd);
                } else {
                    down.insert(osd);
                }
            }
            let all_lost =
                !survivor && down.is_empty() && interval.acting.iter().all(|&o| view.osd(o).lost_at > interval.last);
            if interval.last >= last_started && !survivor && !all_lost {
                // Nobody left even to wait for: name them all, only the operator can go on from here.
                out.blocked_by.extend(if down.is_empty() { interval.acting.clone() } else { down });
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
