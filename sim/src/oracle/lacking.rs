//! Missing equals log minus store: for every object the log speaks of, the store has just the version the log leaves it
//! at, or the replica knows that it lacks it.

use std::collections::BTreeMap;

use nacre_pg::format::{Kind, open};
use nacre_pg::log::Change;
use nacre_pg::object::{INFO_XATTR, ObjectInfo, head_of};
use nacre_store::ObjectStore;

use crate::world::World;

/// Every core of every osd.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    for node in w.nodes.iter().filter(|n| n.running) {
        for (pg, (_, core)) in &node.pgs {
            let mut last = BTreeMap::new();
            for e in core.log().iter().filter(|e| e.change != Change::Error) {
                last.insert(&e.oid, e.after());
            }
            for (oid, version) in last {
                if !core.info().backfilled.covers(&head_of(oid)) || core.missing().contains_key(oid) {
                    continue;
                }
                let stored = node.store.xattrs(*pg, oid).ok().and_then(|x| {
                    let (_, raw) = x.into_iter().find(|(k, _)| k == INFO_XATTR)?;
                    open::<ObjectInfo>(Kind::Object, &raw).ok()
                });
                let stored = stored.map(|i| i.version);
                if stored != version {
                    bad.push(format!(
                        "{} pg {pg} ({}): the log leaves {:?}/{} at {version:?}, the store has {stored:?}, and it is not known as missing",
                        node.id,
                        core.state(),
                        oid.name,
                        oid.snap
                    ));
                }
            }
        }
    }
    w.violations.extend(bad);
}
