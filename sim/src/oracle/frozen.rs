//! A snapshot reads what it froze: once a write under a snapshot was answered and a read then found the snapshot there, all
//! later reads of it give the same answer, whatever happens to the object, for as long as the snapshot is not removed.
//!
//! What a snapshot reads before it is frozen, or of an object that did not exist, is left to the history's oracle.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_pg::op::Op;
use nacre_proto::ids::SnapId;

use crate::history::{Call, History};
use crate::world::World;

fn surely_changes(c: &Call) -> bool {
    let changes = |o: &Op| matches!(o, Op::Append { .. } | Op::WriteFull { .. } | Op::Write { .. });
    matches!(c.answer, Some((_, Ok(_)))) && c.ops.iter().any(changes)
}

fn reads_snap(c: &Call) -> bool {
    c.snap != SnapId::HEAD && matches!(c.ops[..], [Op::Read { .. }])
}

/// Does the answer of this read show a frozen state: some write under the snapshot ended before it was asked, and the
/// object was not removed or rolled back from then to the answer.
fn is_anchored(calls: &[Call], read: &Call) -> bool {
    let Some((until, Ok(_))) = read.answer else { return false };
    let ended = |c: &Call| c.answer.as_ref().map_or(u64::MAX, |(at, _)| *at);
    let undone = |from: u64| {
        let removes = |c: &&Call| c.ops.iter().any(|o| matches!(o, Op::Remove | Op::Rollback { .. }));
        calls.iter().filter(removes).any(|c| c.asked <= until && ended(c) >= from)
    };
    let froze = |c: &&Call| surely_changes(c) && c.snapc.snaps.contains(&read.snap) && ended(c) < read.asked;
    calls.iter().filter(froze).any(|c| !undone(c.asked))
}

/// Reads that are to be equal: each with the first of its snapshot that showed it frozen.
pub(super) fn pairs(history: &History) -> Vec<(&Bytes, &Call, &Call)> {
    let mut out = Vec::new();
    for (name, calls) in &history.objects {
        let mut first: BTreeMap<SnapId, &Call> = BTreeMap::new();
        for c in calls.iter().filter(|c| reads_snap(c)) {
            let Some((at, _)) = &c.answer else { continue };
            if history.removed.get(&c.snap).is_some_and(|t| at >= t) {
                continue;
            }
            match first.get(&c.snap) {
                Some(old) if old.answer.as_ref().is_some_and(|(t, _)| *t < c.asked) => out.push((name, *old, c)),
                Some(_) => {}
                None if is_anchored(calls, c) => {
                    first.insert(c.snap, c);
                }
                None => {}
            }
        }
    }
    out
}

/// Every object.
pub(super) fn check(w: &mut World) {
    let pairs = pairs(&w.history);
    let differ =
        |(_, a, b): &&(&Bytes, &Call, &Call)| a.answer.as_ref().map(|x| &x.1) != b.answer.as_ref().map(|x| &x.1);
    let bad: Vec<String> = pairs
        .iter()
        .filter(differ)
        .map(|(name, old, c)| {
            format!(
                "{}: a snapshot does not read what it froze: {} was {:?} and is {:?} to client {} tid {}",
                String::from_utf8_lossy(name),
                c.snap,
                old.answer,
                c.answer,
                c.client,
                c.tid
            )
        })
        .collect();
    let compared = !pairs.is_empty();
    if compared {
        w.seen("frozen snapshot read again");
    }
    w.violations.extend(bad);
}
