//! Who watches is told, whoever is the primary; who notifies hears who answered and who did not.

use nacre_proto::ids::SessionId;

use crate::io::{Input, Order};
use crate::op::{Op, OpResult, Reply};
use crate::trio::{Trio, oid};

const LONG: u64 = 600_000;

/// An object that is watched by the sessions 1 and 2, under the cookies 10 and 20.
fn watched() -> Trio {
    let mut t = Trio::new();
    t.patient = true;
    t.map(&[0, 1], &[]);
    t.ask(0, Op::WriteFull { data: "some".into() });
    for session in [1, 2] {
        watch(&mut t, 0, session, LONG);
    }
    t
}

/// One operation of a session; its result, if it is answered at once.
fn ask(t: &mut Trio, to: usize, session: u64, op: Op) -> Option<OpResult> {
    t.next += 1;
    let mut r = t.request(oid(), t.next, vec![op]);
    r.reqid.session = SessionId(session);
    match t.send(to, r)? {
        Reply::Done { outcome, .. } => Some(outcome.unwrap().remove(0)),
        Reply::Again { .. } => None,
    }
}

fn watch(t: &mut Trio, to: usize, session: u64, timeout_ms: u64) {
    assert_eq!(ask(t, to, session, Op::Watch { cookie: session * 10, timeout_ms }), Some(OpResult::Done));
}

fn watchers(t: &mut Trio, at: usize) -> Vec<u64> {
    match ask(t, at, 7, Op::ListWatchers) {
        Some(OpResult::Watchers(all)) => all.into_iter().map(|(_, cookie)| cookie).collect(),
        other => panic!("{other:?}"),
    }
}

/// Session 9 notifies; the request's number, and whom the notify was told to under which number.
fn notify(t: &mut Trio, to: usize) -> (u64, Vec<u64>, u64) {
    t.told.clear();
    assert_eq!(ask(t, to, 9, Op::Notify { payload: "look".into(), timeout_ms: LONG }), None, "nobody has answered");
    let notify = t.told[0].2;
    assert!(t.told.iter().all(|(_, _, n)| *n == notify));
    (t.next, t.told.iter().map(|(_, cookie, _)| *cookie).collect(), notify)
}

fn answer(t: &mut Trio, to: usize, session: u64, notify: u64) {
    let payload = format!("from {session}").into();
    ask(t, to, session, Op::NotifyAck { notify, cookie: session * 10, payload });
}

/// What a notify said in the end: who answered, and who did not.
fn said(t: &mut Trio, tid: u64) -> Option<(Vec<u64>, Vec<u64>)> {
    match t.replies.remove(&tid)? {
        Reply::Done { outcome, .. } => match outcome.unwrap().remove(0) {
            OpResult::Notified { acks, missed, .. } => {
                for ((session, _), payload) in &acks {
                    assert_eq!(payload, format!("from {}", session.0).as_bytes());
                }
                Some((acks.into_iter().map(|((_, c), _)| c).collect(), missed.into_iter().map(|(_, c)| c).collect()))
            }
            other => panic!("{other:?}"),
        },
        Reply::Again { .. } => panic!("sent back"),
    }
}

/// Timers of watches and notifies ring now.
fn ring(t: &mut Trio) {
    let rings = std::mem::take(&mut t.rings);
    t.queue.extend(rings);
    t.settle();
}

#[test]
fn a_notify_is_over_when_all_have_answered() {
    let mut t = watched();
    let (tid, told, number) = notify(&mut t, 0);
    assert_eq!(told, [10, 20]);
    answer(&mut t, 0, 1, number);
    // Twice, and by one who was not asked: neither counts.
    answer(&mut t, 0, 1, number);
    answer(&mut t, 0, 5, number);
    assert_eq!(said(&mut t, tid), None);
    answer(&mut t, 0, 2, number);
    assert_eq!(said(&mut t, tid), Some((vec![10, 20], vec![])));
    answer(&mut t, 0, 2, number);
}

#[test]
fn a_notify_ends_with_its_time_and_names_who_did_not_answer() {
    let mut t = watched();
    let (tid, _, number) = notify(&mut t, 0);
    answer(&mut t, 0, 2, number);
    ring(&mut t);
    assert_eq!(said(&mut t, tid), Some((vec![20], vec![10])));
    assert_eq!(watchers(&mut t, 0), [10, 20], "a watch does not end by a missed notify");
}

#[test]
fn watches_survive_a_change_of_the_primary() {
    let mut t = watched();
    let (tid, ..) = notify(&mut t, 0);
    t.map(&[1, 2], &[]);
    assert!(matches!(t.replies.remove(&tid), Some(Reply::Again { .. })), "the notify is to be begun again");
    // Another osd serves, and the next has never heard of the watchers at all.
    t.map(&[2, 1], &[]);
    assert_eq!(watchers(&mut t, 2), [10, 20]);
    let (tid, told, number) = notify(&mut t, 2);
    assert_eq!(told, [10, 20]);
    for session in [1, 2] {
        answer(&mut t, 2, session, number);
    }
    assert_eq!(said(&mut t, tid), Some((vec![10, 20], vec![])));
}

#[test]
fn who_renews_its_watch_hears_what_it_missed() {
    let mut t = watched();
    let (tid, _, number) = notify(&mut t, 0);
    answer(&mut t, 0, 1, number);
    t.told.clear();
    for session in [1, 2] {
        watch(&mut t, 0, session, LONG);
    }
    assert_eq!(t.told, [(SessionId(2), 20, number)], "who has answered is left alone");
    answer(&mut t, 0, 2, number);
    assert_eq!(said(&mut t, tid), Some((vec![10, 20], vec![])));
}

#[test]
fn nobody_waits_for_a_watch_that_was_ended() {
    let mut t = watched();
    let (tid, ..) = notify(&mut t, 0);
    ask(&mut t, 0, 1, Op::Unwatch { cookie: 10 });
    t.queue.push_back((0, Input::Order(Order::SessionGone(SessionId(2)))));
    t.settle();
    let (acks, mut missed) = said(&mut t, tid).unwrap();
    missed.sort_unstable();
    assert_eq!((acks, missed), (vec![], vec![10, 20]));
    assert_eq!(watchers(&mut t, 0), []);
    // Nobody is left: such a notify is over at once.
    let over = ask(&mut t, 0, 9, Op::Notify { payload: "look".into(), timeout_ms: LONG });
    assert!(matches!(over, Some(OpResult::Notified { acks, missed, .. }) if acks.is_empty() && missed.is_empty()));
}

#[test]
fn a_watch_ends_when_its_owner_is_silent_for_its_time() {
    let mut t = watched();
    watch(&mut t, 0, 3, 60_000);
    assert_eq!(watchers(&mut t, 0), [10, 20, 30]);
    t.next += 20;
    watch(&mut t, 0, 3, 60_000);
    t.next += 20;
    ring(&mut t);
    assert_eq!(watchers(&mut t, 0), [10, 20, 30], "it was renewed");
    t.next += 20;
    ring(&mut t);
    assert_eq!(watchers(&mut t, 0), [10, 20]);
    // A new primary gives each its whole time anew, and no more.
    t.map(&[1, 0], &[]);
    assert_eq!(watchers(&mut t, 1), [10, 20]);
    t.next += 400;
    ring(&mut t);
    assert_eq!(watchers(&mut t, 1), []);
}
