//! A request takes effect once, however often it is sent: no log holds its identity twice, every answer to it is the
//! same answer to the same place in the log, and what is answered (a refusal too) is remembered.
//!
//! What the effects of appends and class calls are is judged by the history; this finds the cause earlier.

use std::collections::BTreeMap;

use nacre_pg::log::LogEntry;
use nacre_proto::ids::OsdId;

use super::ledger::{Acked, Asked};
use crate::world::World;

/// A request was answered before.
pub(super) fn compare(asked: &Asked, old: &Acked, new: &Acked) -> Option<String> {
    let who = || format!("client {} tid {} of {:?}", asked.client, asked.tid, asked.oid.name);
    if old.version != new.version {
        return Some(format!("{} took effect twice: as {} and as {}", who(), old.version, new.version));
    }
    (old.outcome != new.outcome)
        .then(|| format!("{} was answered {:?}, and once more {:?}", who(), old.outcome, new.outcome))
}

/// A request was answered, and whoever answered does not remember it.
pub(super) fn forgotten(by: OsdId, asked: &Asked) -> String {
    format!(
        "{by} pg {}: answers client {} tid {} of {:?} and does not remember it: a retry would take effect again",
        asked.pg, asked.client, asked.tid, asked.oid.name
    )
}

/// Every core of every osd.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    for node in w.nodes.iter().filter(|n| n.running) {
        for (pg, (_, core)) in &node.pgs {
            bad.extend(twice(&format!("{} pg {pg}", node.id), core.log().iter()));
        }
    }
    w.violations.extend(bad);
}

/// Identities that are in a log twice.
pub(super) fn twice<'a>(whose: &str, log: impl Iterator<Item = &'a LogEntry>) -> Vec<String> {
    let mut seen = BTreeMap::new();
    log.filter_map(|e| {
        let reqid = e.reqid?;
        let first = seen.insert(reqid, e.version)?;
        Some(format!("{whose}: {reqid:?} took effect twice: as {first} and as {}", e.version))
    })
    .collect()
}
