//! What is wrong with a history that no order explains: hypotheses are tried one by one, each a small change of the history
//! after which an order is found. The first that explains it names the promise that was broken.

use std::collections::BTreeSet;

use nacre_pg::op::Op;
use nacre_proto::ids::SnapId;

use super::linear::{self, Verdict};
use crate::history::Call;

/// Calls around the place where the search was stuck that are tried at most.
const TRIED: usize = 60;

fn is_fine(calls: &[Call], removed: &BTreeSet<u64>) -> bool {
    linear::check(calls, removed) == Verdict::Fine
}

fn reads(c: &Call) -> bool {
    !c.ops.iter().any(|o| o.writes() || matches!(o, Op::Call { .. }))
}

fn who(c: &Call) -> String {
    format!("client {} tid {}", c.client, c.tid)
}

/// The promise that was broken, in one line.
pub(super) fn diagnose(calls: &[Call], stuck: &[usize], removed: &BTreeSet<u64>) -> String {
    let changed = |i: usize, f: &dyn Fn(&mut Call)| {
        let mut list = calls.to_vec();
        f(&mut list[i]);
        list
    };
    for &i in stuck.iter().filter(|i| calls[**i].snap != SnapId::HEAD) {
        if is_fine(&changed(i, &|c| c.answer = None), removed) {
            return format!("a snapshot does not read what it froze: {}", who(&calls[i]));
        }
    }
    for &i in stuck.iter().filter(|i| reads(&calls[**i])) {
        if is_fine(&changed(i, &|c| c.asked = 0), removed) {
            return format!("a stale read: what {} was told had been true, and was no more", who(&calls[i]));
        }
    }
    // The calls answered last before the search was stuck, and some after: the culprit is near.
    let at = stuck.iter().map(|i| calls[*i].asked).min().unwrap_or(u64::MAX);
    let mut near: Vec<usize> = (0..calls.len()).filter(|i| !reads(&calls[*i])).collect();
    near.sort_by_key(|i| calls[*i].asked.abs_diff(at));
    near.truncate(TRIED);
    for &i in near.iter().filter(|i| calls[**i].answer.is_some()) {
        if is_fine(&changed(i, &|c| c.answer = None), removed) {
            return format!("an acknowledged write is lost: {}", who(&calls[i]));
        }
    }
    for &i in &near {
        let mut list = calls.to_vec();
        list.push(Call { answer: None, ..calls[i].clone() });
        if is_fine(&list, removed) {
            return format!("a request took effect twice: {}", who(&calls[i]));
        }
    }
    for &i in stuck.iter().filter(|i| reads(&calls[**i])) {
        if is_fine(&changed(i, &|c| c.answer = None), removed) {
            return format!("a read that no write explains, or of one that was lost later: {}", who(&calls[i]));
        }
    }
    "several answers contradict each other".to_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nacre_pg::log::Outcome;
    use nacre_pg::op::{OpError, OpResult, SnapContext};

    use super::*;

    fn call(op: Op, asked: u64, answer: Option<(u64, Outcome)>) -> Call {
        Call { client: 1, tid: asked, ops: vec![op], snap: SnapId::HEAD, snapc: SnapContext::default(), asked, answer }
    }

    fn done(at: u64) -> Option<(u64, Outcome)> {
        Some((at, Ok(vec![OpResult::Done])))
    }

    fn full(v: &'static str, asked: u64) -> Call {
        call(Op::WriteFull { data: Bytes::from_static(v.as_bytes()) }, asked, done(asked + 1))
    }

    fn append(asked: u64) -> Call {
        call(Op::Append { data: Bytes::from_static(b"x") }, asked, done(asked + 1))
    }

    fn read(v: &'static str, asked: u64) -> Call {
        let data = OpResult::Data(Bytes::from_static(v.as_bytes()));
        call(Op::Read { offset: 0, len: 100 }, asked, Some((asked + 1, Ok(vec![data]))))
    }

    fn told(calls: &[Call]) -> String {
        let none = BTreeSet::new();
        match linear::check(calls, &none) {
            Verdict::Broken { stuck, .. } => diagnose(calls, &stuck, &none),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_read_of_what_was_true_is_stale() {
        let text = told(&[full("a", 0), full("b", 10), read("b", 20), read("a", 30), read("b", 40)]);
        assert!(text.starts_with("a stale read") && text.contains("tid 30"), "{text}");
    }

    #[test]
    fn a_write_nobody_sees_again_is_lost() {
        let text = told(&[full("a", 0), full("b", 10), read("b", 15), append(20), read("b", 30), read("b", 40)]);
        assert!(text.starts_with("an acknowledged write is lost") && text.contains("tid 20"), "{text}");
    }

    #[test]
    fn a_lost_creation_is_lost() {
        let absent = call(Op::Read { offset: 0, len: 9 }, 10, Some((11, Err(OpError::NotFound { at: 0 }))));
        let text = told(&[
            full("a", 0),
            absent.clone(),
            Call { asked: 20, answer: absent.answer.map(|(_, o)| (21, o)), ..absent },
        ]);
        assert!(text.contains("lost") || text.contains("stale"), "{text}");
    }

    #[test]
    fn an_append_that_doubles_took_effect_twice() {
        let text = told(&[append(0), read("xx", 10), append(20), read("xxx", 30)]);
        assert!(text.starts_with("a request took effect twice"), "{text}");
    }

    #[test]
    fn a_snapshot_that_changes_is_named() {
        let mut snapped = full("b", 10);
        snapped.snapc = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        let frozen = Call { snap: SnapId(1), ..read("b", 20) };
        let text = told(&[full("a", 0), snapped, frozen]);
        assert!(text.starts_with("a snapshot does not read what it froze"), "{text}");
    }

    #[test]
    fn a_read_from_nowhere_is_named() {
        let text = told(&[full("a", 0), read("q", 10), read("a", 20)]);
        assert!(text.starts_with("a read that no write explains"), "{text}");
    }
}
