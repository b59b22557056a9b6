//! Snapshot numbers of a pool, for clients that say with each write which snapshots it must keep.
//!
//! A pool only counts: what a number is a snapshot of, its maker knows. A number is given once, also when it was dropped;
//! a dropped one is remembered, so that no write of a client that has not heard of it brings its clones back.

use std::collections::BTreeSet;
use std::sync::Arc;

use nacre_proto::ids::{SnapId, Stamp};

use super::{Outcome, RuleError, pool_named, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Pool};

/// Numbers above are kept for meanings of their own.
const LAST: SnapId = SnapId(u64::MAX >> 1);

/// Takes a number, the one after the newest or higher.
pub fn make(map: &ClusterMap, name: &str, snap: SnapId, now: Stamp) -> Result<Outcome, RuleError> {
    let (id, pool) = pool_named(map, name)?;
    if snap <= pool.snap_seq {
        return Err(RuleError::Exists {
            what: "snapshot number",
            name: snap.0.to_string(),
            hint: "another client took it; ask for the next",
        });
    }
    if snap > LAST || snap.0 - pool.snap_seq.0 > 1 << 20 {
        let expected = format!("the one after {}, or a little above", pool.snap_seq.0);
        return Err(wrong("snapshot number", snap.0, expected));
    }
    let mut draft = Draft::of(map, now);
    let next = Pool { snap_seq: snap, changed_in: draft.epoch, ..pool.clone() };
    set(&mut draft.pools, id, Arc::new(next));
    Ok(Outcome::of(draft, format!("snapshot {} of pool {name}", snap.0)))
}

/// Drops numbers; those dropped before are passed over.
pub fn drop_snaps(map: &ClusterMap, name: &str, snaps: &[SnapId], now: Stamp) -> Result<Outcome, RuleError> {
    let (id, pool) = pool_named(map, name)?;
    if let Some(unknown) = snaps.iter().find(|snap| **snap > pool.snap_seq || snap.0 == 0) {
        return Err(refused(
            format!("pool {name} has never had a snapshot {}", unknown.0),
            format!("its newest is {}", pool.snap_seq.0),
        ));
    }
    let mut removed: BTreeSet<SnapId> = (*pool.removed_snaps).clone();
    let before = removed.len();
    removed.extend(snaps.iter().copied());
    let gone = removed.len() - before;
    if gone == 0 {
        return Ok(Outcome::already("all of them were dropped already"));
    }
    let mut draft = Draft::of(map, now);
    let next = Pool { removed_snaps: Arc::new(removed), changed_in: draft.epoch, ..pool.clone() };
    set(&mut draft.pools, id, Arc::new(next));
    Ok(Outcome::of(draft, format!("{gone} snapshots of pool {name} dropped; their clones are trimmed")))
}
