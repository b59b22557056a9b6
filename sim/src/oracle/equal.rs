//! After healing: all copies of a pg are equal byte for byte, nobody else holds one, counts are exact, and the past is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};

use nacre_pg::format::{Kind, open};
use nacre_pg::object::{INFO_XATTR, ObjectInfo};
use nacre_pg::state::Stats;
use nacre_proto::ids::{ObjectId, SnapId, Version};
use nacre_store::ObjectStore;

use crate::world::World;

/// Version and digest by object; no digest: it cannot be read, and is known to have rotted.
type Copies = BTreeMap<ObjectId, (Version, Option<[u8; 32]>)>;

fn same(a: Option<&(Version, Option<[u8; 32]>)>, b: Option<&(Version, Option<[u8; 32]>)>) -> bool {
    match (a, b) {
        (Some((v, x)), Some((w, y))) => v == w && (x == y || x.is_none() || y.is_none()),
        _ => false,
    }
}

/// Every pg.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    let map = w.maps.last();
    for pg in map.pgs() {
        let view = map.view(pg);
        let mut first: Option<Copies> = None;
        for osd in &view.acting {
            let node = &w.nodes[osd.0 as usize];
            let list = node.store.list(pg, None, usize::MAX).unwrap_or_default();
            let mut stats = Stats::default();
            let mut copy = Copies::new();
            for oid in &list {
                let info = node.store.xattr(pg, oid, INFO_XATTR).ok().flatten();
                let info = info.and_then(|raw| open::<ObjectInfo>(Kind::Object, &raw).ok());
                let Some(info) = info else {
                    bad.push(format!("{osd} pg {pg}: {:?} has no metadata record", oid.name));
                    continue;
                };
                if let Some(s) = info.clone_of.iter().find(|s| map.pool.removed_snaps.contains(s)) {
                    bad.push(format!("{osd} pg {pg}: {:?} still has a clone for the removed snapshot {s}", oid.name));
                }
                if oid.snap != SnapId::HEAD {
                    stats.clones += 1;
                    stats.bytes += info.size;
                } else if !info.whiteout {
                    stats.objects += 1;
                    stats.bytes += info.size;
                }
                // A block that rotted and that nobody has compared since: what it should hold is on the others.
                let rotten = w.rotten.contains(&(*osd, pg, oid.clone()));
                let digest = node.store.digest(pg, oid).ok();
                if digest.is_none() && !rotten {
                    bad.push(format!("{osd} pg {pg}: {:?}/{} cannot be read, and did not rot", oid.name, oid.snap));
                }
                copy.insert(oid.clone(), (info.version, digest));
            }
            if let Some((_, core)) = node.pgs.get(&pg) {
                if core.info().stats != stats {
                    bad.push(format!("{osd} pg {pg}: counts {:?}, the store holds {stats:?}", core.info().stats));
                }
                if !core.past().is_empty() {
                    bad.push(format!("{osd} pg {pg}: clean, but remembers {} past intervals", core.past().len()));
                }
            } else {
                bad.push(format!("{osd} pg {pg}: a member has no copy"));
            }
            match &first {
                None => first = Some(copy),
                Some(f) => {
                    let names: BTreeSet<_> = f.keys().chain(copy.keys()).collect();
                    let differ: Vec<String> = names
                        .into_iter()
                        .filter(|o| !same(f.get(*o), copy.get(*o)))
                        .map(|o| {
                            let version = |c: &Copies| c.get(o).map_or("absent".to_owned(), |(v, _)| v.to_string());
                            format!("{:?}/{} ({} and {})", o.name, o.snap, version(f), version(&copy))
                        })
                        .collect();
                    if !differ.is_empty() {
                        bad.push(format!("pg {pg}: {} and {osd} differ in {}", view.acting[0], differ.join(", ")));
                    }
                }
            }
        }
        for node in &w.nodes {
            if !view.has(node.id) && node.pgs.contains_key(&pg) {
                bad.push(format!("{} pg {pg}: a copy that nobody needs was kept", node.id));
            }
        }
    }
    w.violations.extend(bad);
}
