//! No acknowledged write is lost: whoever begins to serve a pg, and at the end every member, has in its log each write
//! of the pg that was ever answered, at the place it was answered for, as far back as the log reaches.
//!
//! Who is cut off and begins to serve an interval that is over cannot know what was ordered in a later one. That it answers
//! nobody by then is another oracle's to judge.

use nacre_proto::ids::{OsdId, PgId, Version};

use super::ledger::Served;
use crate::world::World;

/// One core.
pub(super) fn check(w: &mut World, osd: OsdId, pg: PgId) {
    let Some((_, core)) = w.nodes[osd.0 as usize].pgs.get(&pg) else { return };
    let here = Served { by: osd, interval: core.info().interval, pg_num: core.info().pg_num, since: w.now };
    let mut bad = Vec::new();
    let known = |version: Version| version > core.log().tail() && version.epoch <= here.interval;
    for (reqid, a) in w.ledger.acked.iter().filter(|(_, a)| here.has(pg, &a.oid) && known(a.version)) {
        let found = core.log().reply_to(*reqid).map(|d| d.version);
        if found != Some(a.version) {
            bad.push(format!(
                "{osd} pg {pg} ({}): a write of {:?} was acknowledged as {}: client {} tid {}; this log, from {} to {}, has {found:?}: an acknowledged write is lost",
                core.state(),
                a.oid.name,
                a.version,
                reqid.session.0 - 1,
                reqid.tid,
                core.log().tail(),
                core.log().head(),
            ));
        }
    }
    w.violations.extend(bad);
}

/// Every member of every pg.
pub(super) fn check_all(w: &mut World) {
    let map = std::sync::Arc::clone(w.maps.last());
    for pg in map.pgs() {
        for osd in map.view(pg).acting {
            check(w, osd, pg);
        }
    }
}
