//! Notifies: an answer that is reported was sent, by that watcher, to that notify; a watcher whose watch surely stood all
//! the while is named, as one who answered or as one who did not; and when nothing fails, every living one answers.
//! Watches of dead clients end by themselves.

use std::collections::BTreeSet;

use nacre_pg::format::{Kind, open};
use nacre_pg::object::{INFO_XATTR, ObjectInfo};
use nacre_pg::op::{Op, OpResult};
use nacre_proto::ids::SessionId;
use nacre_store::ObjectStore;

use crate::world::{MS, World};

/// All of a run.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    for (name, calls) in &w.history.objects {
        let shown = String::from_utf8_lossy(name);
        // What may have removed the object, and its watches with it.
        let removals: Vec<(u64, u64)> = calls
            .iter()
            .filter(|c| c.ops.iter().any(|o| matches!(o, Op::Remove | Op::Rollback { .. })))
            .map(|c| (c.asked, c.answer.as_ref().map_or(u64::MAX, |(at, _)| *at)))
            .collect();
        for call in calls {
            let living = w.clients.get(call.client as usize).is_some_and(|c| c.alive);
            if call.answer.is_none() && living && call.asked + 5000 * MS < w.now {
                bad.push(format!("{shown}: {:?} asked {} was never answered", call.ops, call.asked));
            }
            let Some((answered, Ok(results))) = &call.answer else { continue };
            for r in results {
                let OpResult::Notified { notify, acks, missed } = r else { continue };
                let mut named: BTreeSet<(SessionId, u64)> = missed.iter().copied().collect();
                for ((session, cookie), payload) in acks {
                    let client = (session.0 - 1) as u32;
                    if w.watches.sent.get(&(name.clone(), *notify, client, *cookie)) != Some(payload) {
                        bad.push(format!(
                            "{shown}: notify {notify} reports an answer of {session:?} that it never gave"
                        ));
                    }
                    if !named.insert((*session, *cookie)) {
                        bad.push(format!("{shown}: notify {notify} names {session:?} twice"));
                    }
                }
                for ((_, client, cookie), watch) in w.watches.all.iter().filter(|((n, _, _), _)| n == name) {
                    // Clocks differ by less than one in a thousand.
                    let lasts = watch.last_ms * MS / 1000 * 998;
                    let stood = watch.renewals.iter().any(|(a, b)| *b < call.asked && a + lasts > *answered)
                        && watch.ended.is_none_or(|e| e > *answered)
                        && !removals.iter().any(|(from, to)| *to > watch.began && *from < *answered);
                    if !stood {
                        continue;
                    }
                    let who = (SessionId(u64::from(*client) + 1), *cookie);
                    if !named.contains(&who) {
                        bad.push(format!(
                            "{shown}: notify {notify} asked {} answered {answered} does not name {who:?}: {watch:?}",
                            call.asked
                        ));
                    }
                    if call.asked > w.healed && missed.contains(&who) {
                        bad.push(format!("{shown}: notify {notify} missed {who:?} although nothing failed"));
                    }
                }
            }
        }
    }
    let dead: BTreeSet<SessionId> =
        w.clients.iter().filter(|c| !c.alive).map(|c| SessionId(u64::from(c.id) + 1)).collect();
    let map = w.maps.last();
    for pg in map.pgs() {
        let Some(primary) = map.view(pg).primary else { continue };
        let store = &w.nodes[primary.0 as usize].store;
        for oid in store.list(pg, None, usize::MAX).unwrap_or_default() {
            let raw = store.xattr(pg, &oid, INFO_XATTR).ok().flatten();
            let Some(info) = raw.and_then(|r| open::<ObjectInfo>(Kind::Object, &r).ok()) else { continue };
            if let Some((who, _)) = info.watchers.iter().find(|((s, _), _)| dead.contains(s)) {
                bad.push(format!("pg {pg}: {:?} is still watched by {who:?}, who is dead", oid.name));
            }
        }
    }
    w.violations.extend(bad);
}
