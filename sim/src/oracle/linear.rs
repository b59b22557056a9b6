//! Is there an order of an object's calls that respects real time and gives every answer that was given? A search with
//! memory (Wing and Gong, with Lowe's memo of configurations): exact, per object, over the whole history.
//!
//! A call that was never answered may have happened at any time after it was asked, or not at all.

use std::collections::BTreeSet;

use super::model::Model;
use crate::history::Call;

/// The verdict over one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Fine,
    /// There is none; the longest one found covers so many calls, and these could not follow.
    Broken { explained: usize, stuck: Vec<usize> },
    /// The search grew too large. Counted and told, never taken for fine.
    TooHard,
}

/// Configurations visited before the search gives up.
const LIMIT: usize = 400_000;

/// Checks one object's calls. The snapshots `removed` were removed at some time, and the last trace of an object that is
/// kept for them alone goes at some time after.
pub fn check(calls: &[Call], removed: &BTreeSet<u64>) -> Verdict {
    // Events sorted by time: of equal times, answers after questions (overlap is the weaker claim).
    let n = calls.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| (calls[i].asked, i));
    let words = n.div_ceil(64);
    let mut done = vec![0u64; words];
    let mut seen: BTreeSet<(Vec<u64>, Model)> = BTreeSet::new();
    let mut best = (0, Vec::new());
    let required = calls.iter().filter(|c| c.answer.is_some()).count();
    let mut stack: Vec<(usize, usize, Model)> = Vec::new();
    let mut model = Model::default();
    let mut from = 0;
    let mut explained = 0;
    loop {
        if explained == required {
            return Verdict::Fine;
        }
        // The earliest answer among calls not yet placed: only calls asked before it may come next.
        let is_done = |done: &[u64], i: usize| done[i / 64] >> (i % 64) & 1 == 1;
        let mut frontier = u64::MAX;
        let forgotten = model.forgotten(removed);
        let mut candidates = Vec::new();
        for &i in &order {
            if calls[i].asked > frontier {
                break;
            }
            if is_done(&done, i) {
                continue;
            }
            candidates.push((i, false));
            if forgotten.is_some() {
                candidates.push((i, true));
            }
            if let Some((at, _)) = &calls[i].answer {
                frontier = frontier.min(*at);
            }
        }
        candidates.retain(|&(i, _)| calls[i].asked <= frontier);
        let mut advanced = false;
        for (k, &(i, forget)) in candidates.iter().enumerate().skip(from) {
            let before = forgotten.as_ref().filter(|_| forget).unwrap_or(&model);
            let (outcome, next) = before.apply(&calls[i]);
            if let Some((_, given)) = &calls[i].answer {
                if *given != outcome {
                    continue;
                }
            } else if next == *before {
                // An unanswered call without effect explains nothing.
                continue;
            }
            done[i / 64] |= 1 << (i % 64);
            if seen.insert((done.clone(), next.clone())) {
                stack.push((i, k, std::mem::replace(&mut model, next)));
                explained += usize::from(calls[i].answer.is_some());
                from = 0;
                advanced = true;
                break;
            }
            done[i / 64] &= !(1 << (i % 64));
        }
        if advanced {
            if seen.len() > LIMIT {
                return Verdict::TooHard;
            }
            continue;
        }
        if explained >= best.0 {
            best = (explained, candidates.into_iter().filter(|(_, f)| !f).map(|(i, _)| i).collect());
        }
        let Some((i, k, before)) = stack.pop() else {
            return Verdict::Broken { explained: best.0, stuck: best.1 };
        };
        done[i / 64] &= !(1 << (i % 64));
        explained -= usize::from(calls[i].answer.is_some());
        model = before;
        from = k + 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nacre_pg::log::Outcome;
    use nacre_pg::op::{Op, OpError, OpResult, SnapContext};
    use nacre_proto::ids::SnapId;

    use super::*;

    fn check_all(calls: &[Call]) -> Verdict {
        check(calls, &BTreeSet::new())
    }

    fn call(op: Op, asked: u64, answer: Option<(u64, Outcome)>) -> Call {
        Call { client: 1, tid: asked, ops: vec![op], snap: SnapId::HEAD, snapc: SnapContext::default(), asked, answer }
    }

    fn write(v: &'static str, asked: u64, at: Option<u64>) -> Call {
        let op = Op::WriteFull { data: Bytes::from_static(v.as_bytes()) };
        call(op, asked, at.map(|t| (t, Ok(vec![OpResult::Done]))))
    }

    fn read(v: Option<&'static str>, asked: u64, at: u64) -> Call {
        let answer =
            v.map_or(Err(OpError::NotFound { at: 0 }), |v| Ok(vec![OpResult::Data(Bytes::from_static(v.as_bytes()))]));
        call(Op::Read { offset: 0, len: 100 }, asked, Some((at, answer)))
    }

    #[test]
    fn reads_may_see_either_side_of_a_write_that_overlaps() {
        assert_eq!(check_all(&[write("a", 0, Some(10)), read(None, 1, 5)]), Verdict::Fine);
        assert_eq!(check_all(&[write("a", 0, Some(10)), read(Some("a"), 1, 5)]), Verdict::Fine);
    }

    #[test]
    fn a_read_after_an_answer_must_see_it() {
        assert!(matches!(check_all(&[write("a", 0, Some(10)), read(None, 11, 12)]), Verdict::Broken { .. }));
    }

    #[test]
    fn reads_never_go_back_in_time() {
        let calls = [write("a", 0, Some(1)), write("b", 2, Some(20)), read(Some("b"), 3, 4), read(Some("a"), 5, 6)];
        assert!(matches!(check_all(&calls), Verdict::Broken { .. }));
    }

    #[test]
    fn an_unanswered_write_may_happen_late_or_never() {
        assert_eq!(check_all(&[write("a", 0, None), read(None, 5, 6), read(Some("a"), 7, 8)]), Verdict::Fine);
        assert_eq!(check_all(&[write("a", 0, None), read(None, 5, 6)]), Verdict::Fine);
    }

    #[test]
    fn an_append_happens_once() {
        let append = |asked, at| {
            call(Op::Append { data: Bytes::from_static(b"x") }, asked, Some((at, Ok(vec![OpResult::Done]))))
        };
        assert_eq!(check_all(&[append(0, 1), append(2, 3), read(Some("xx"), 4, 5)]), Verdict::Fine);
        assert!(matches!(check_all(&[append(0, 1), read(Some("xx"), 4, 5)]), Verdict::Broken { .. }));
    }
}
