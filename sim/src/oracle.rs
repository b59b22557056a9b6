//! What must hold, whatever happens: one file per invariant. `sample` looks in passing, `at_rest` after everything was
//! healed and is quiet.

pub mod classes;
mod equal;
mod lacking;
pub mod linear;
pub mod model;
mod notify;

use std::collections::BTreeSet;

use nacre_pg::op::Op;

use crate::history::Call;

use crate::world::World;

/// Looked at now and then while faults go on.
pub fn sample(w: &mut World) {
    lacking::check(w);
}

/// Looked at when the cluster is healed and quiet.
pub fn at_rest(w: &mut World) {
    lacking::check(w);
    equal::check(w);
    notify::check(w);
    let removed: BTreeSet<u64> = w.history.removed.keys().map(|s| s.0).collect();
    let objects: Vec<_> = w
        .history
        .objects
        .iter()
        .map(|(n, c)| {
            // What a notify answers is judged by `notify`.
            let calls: Vec<_> =
                c.iter().filter(|c| !c.ops.iter().any(|o| matches!(o, Op::Notify { .. }))).cloned().collect();
            let gone = |c: &Call| {
                let at = w.history.removed.get(&c.snap);
                at.is_some_and(|at| c.answer.as_ref().is_some_and(|(when, _)| when >= at))
            };
            let calls: Vec<_> = calls.into_iter().filter(|c| !gone(c)).collect();
            (n.clone(), linear::check(&calls, &removed))
        })
        .collect();
    for (name, verdict) in objects {
        let name = String::from_utf8_lossy(&name).into_owned();
        match verdict {
            linear::Verdict::Fine => {}
            linear::Verdict::TooHard => w.too_hard += 1,
            linear::Verdict::Broken { explained, stuck } => {
                let calls = &w.history.objects[name.as_bytes()];
                let mut lines = vec![format!(
                    "{name}: no order of its {} calls gives the answers seen; {explained} could be placed, none of these next:",
                    calls.len()
                )];
                for i in stuck {
                    let c = &calls[i];
                    lines.push(format!(
                        "  client {} tid {} snap {} seq {} asked {} {:?} answered {:?}",
                        c.client, c.tid, c.snap, c.snapc.seq, c.asked, c.ops, c.answer
                    ));
                }
                w.violations.push(lines.join("\n"));
            }
        }
    }
}
