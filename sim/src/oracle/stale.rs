//! No read from a stale primary: once a later primary serves a pg, no earlier one answers a read that is asked from then
//! on. A read that was asked before may still be answered: it overlaps.

use nacre_proto::ids::OsdId;

use super::ledger::Asked;
use crate::world::World;

/// An osd answers a read.
pub(super) fn check(w: &mut World, by: OsdId, asked: &Asked) {
    let Some((_, core)) = w.nodes[by.0 as usize].pgs.get(&asked.pg) else { return };
    let mine = core.info().interval;
    // Nobody waits for the answer: it is no promise.
    let Some(at) = w.asked_at(asked.client, asked.tid) else { return };
    let later = w
        .ledger
        .served
        .iter()
        .find(|(pg, s)| s.by != by && s.interval > mine && s.since < at && s.has(**pg, &asked.oid));
    if let Some((pg, s)) = later {
        let text = format!(
            "{by} pg {}: a stale read: answers client {} tid {} of {:?} in interval {mine}, asked when {} had served pg {pg} in interval {} for {} ms",
            asked.pg,
            asked.client,
            asked.tid,
            asked.oid.name,
            s.by,
            s.interval,
            (at - s.since) / crate::world::MS,
        );
        w.violations.push(text);
    }
}
