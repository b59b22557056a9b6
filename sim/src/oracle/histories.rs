//! Every object's history is linearizable: its calls happened in one order that respects real time and gives every answer
//! that clients saw. From this follow: no acknowledged write is lost, no read is stale, snapshots read what they froze,
//! an append or a class call has its effect once. What fails is said by the name of the weakest of these that is broken.

use std::collections::BTreeSet;

use bytes::Bytes;
use nacre_pg::op::{Op, OpError};

use super::linear::{self, Verdict};
use crate::history::Call;
use crate::world::World;

/// Every object.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    let mut too_hard = 0;
    let removed: BTreeSet<u64> = w.history.removed.keys().map(|s| s.0).collect();
    for (name, calls) in &w.history.objects {
        // What a snapshot reads once it is removed is nobody's business.
        let gone = |c: &Call| {
            let at = w.history.removed.get(&c.snap);
            at.is_some_and(|at| c.answer.as_ref().is_some_and(|(when, _)| when >= at))
        };
        let calls: Vec<Call> = calls.iter().filter(|c| says_something(c) && !gone(c)).cloned().collect();
        match linear::check(&calls, &removed) {
            Verdict::Fine => {}
            Verdict::TooHard => too_hard += 1,
            Verdict::Broken { explained, stuck } => {
                let cause = super::diagnose::diagnose(&calls, &stuck, &removed);
                bad.push(tell(name, &cause, &calls, explained, &stuck));
            }
        }
    }
    w.too_hard += too_hard;
    w.violations.extend(bad);
}

/// What a notify answers is judged elsewhere; that a copy is damaged says nothing of what the object holds.
fn says_something(c: &Call) -> bool {
    let notifies = c.ops.iter().any(|o| matches!(o, Op::Notify { .. }));
    let damaged = matches!(&c.answer, Some((_, Err(OpError::Damaged { .. }))));
    !notifies && !damaged
}

fn tell(name: &Bytes, cause: &str, calls: &[Call], explained: usize, stuck: &[usize]) -> String {
    let mut lines = vec![format!(
        "{}: {cause} (no order of its {} calls gives the answers seen; {explained} could be placed, none of these next)",
        String::from_utf8_lossy(name),
        calls.len()
    )];
    for c in stuck.iter().filter_map(|i| calls.get(*i)) {
        lines.push(format!(
            "  client {} tid {} snap {} seq {} asked {} {:?} answered {:?}",
            c.client, c.tid, c.snap, c.snapc.seq, c.asked, c.ops, c.answer
        ));
    }
    lines.join("\n")
}
