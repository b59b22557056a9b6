//! What becomes of requests at the edges: late duplicates, many sessions, the end of an interval.

use nacre_proto::ids::{ObjectId, OsdId, SessionId, Version};

use crate::io::{Input, Order, Output, SlotKind, Step, Time};
use crate::log::ReqId;
use crate::msg::{Body, PeerMsg, Rep};
use crate::op::{Op, Reply};
use crate::state::Config;
use crate::trio::{Trio, oid};

fn append(text: &'static str) -> Vec<Op> {
    vec![Op::Append { data: text.into() }]
}

fn two() -> Trio {
    let mut t = Trio::with(Config { log_keep: 4, log_slack: 1, max_dups: 8, ..Config::default() });
    t.map(&[0, 1], &[]);
    t
}

#[test]
fn a_late_duplicate_of_an_answered_request_does_nothing() {
    let mut t = two();
    let first = t.request(oid(), 100, append("a"));
    assert!(t.send(0, first.clone()).is_some());
    for tid in 101..120 {
        let mut r = t.request(oid(), tid, append("b"));
        r.acked_below = tid;
        t.send(0, r);
    }
    assert!(t.cores[0].log().reply_to(first.reqid).is_none(), "the log still knows it: nothing is tested");
    assert!(t.send(0, first).is_some(), "every request is answered");
    let text = t.read(0).unwrap().unwrap();
    assert_eq!(text.iter().filter(|b| **b == b'a').count(), 1, "appended twice");
}

#[test]
fn sessions_that_come_and_go_are_not_remembered_for_ever() {
    let mut t = two();
    for n in 0..200 {
        let mut r = t.request(oid(), 1000 + n, append("x"));
        r.reqid.session = SessionId(n + 1);
        r.acked_below = 5;
        t.send(0, r);
    }
    for core in &t.cores[..2] {
        assert!(core.log().dups().acked.len() <= 16, "{} sessions", core.log().dups().acked.len());
    }
}

#[test]
fn reads_that_wait_at_the_end_of_an_interval_are_sent_back() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "old".into() });
    t.map(&[0], &[]);
    t.ask(0, Op::WriteFull { data: "newer".into() });
    t.no_push = true;
    t.map(&[1, 0], &[]);
    let r = t.request(oid(), 900, vec![Op::Read { offset: 0, len: 9 }]);
    assert_eq!(t.send(1, r), None, "the primary lacks the object and cannot have it");
    t.no_push = false;
    t.map(&[0, 1], &[]);
    assert!(matches!(t.replies.get(&900), Some(Reply::Again { .. })));
}

#[test]
fn a_retry_is_answered_as_the_first_was() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    t.ask(0, Op::Watch { cookie: 1, timeout_ms: 600_000 });
    for op in [
        Op::Watch { cookie: 2, timeout_ms: 600_000 },
        Op::Create { exclusive: false },
        Op::Create { exclusive: true },
        Op::SetXattr { name: "k".into(), value: "v".into() },
        Op::RemoveXattr { name: "none".into() },
    ] {
        t.next += 1;
        let r = t.request(oid(), t.next, vec![op.clone()]);
        let first = t.send(0, r.clone());
        assert!(first.is_some());
        assert_eq!(t.send(0, r), first, "{op:?}");
    }
}

#[test]
fn a_member_survives_what_no_primary_says() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    let log = t.cores[1].log();
    let head = log.head();
    let mut entry = log.iter().next_back().unwrap().clone();
    entry.version = Version { epoch: head.epoch, counter: head.counter + 1 };
    entry.reqid = Some(ReqId { session: SessionId(9), tid: 9 });
    // The same entry twice: versions must rise.
    let entries = vec![entry.clone().into(), entry.into()];
    let rep = Rep { prev: head, entries, ops: Vec::new(), trim_to: Version::default() };
    let msg = PeerMsg { epoch: t.view.epoch, interval: t.view.epoch, body: Body::Rep(rep.into()) };
    let mut out = Vec::new();
    let mut cx = Step { now: Time(1), wall_ms: 0, out: &mut out };
    t.cores[1].step(&mut cx, Input::Peer { from: OsdId(0), msg });
    assert_eq!(t.cores[1].log().head(), head);
    assert!(!out.iter().any(|o| matches!(o, Output::Submit { .. })), "took it: {out:?}");
}

#[test]
fn whatever_an_operation_waits_for_is_named() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    assert_eq!(t.cores[0].explain(), "clean");
    t.deaf = Some(1);
    let r = t.request(oid(), 500, append("more"));
    assert_eq!(t.send(0, r), None);
    let why = t.cores[0].explain();
    assert!(why.contains("1 writes are not safe") && why.contains("thing") && why.contains("osd.1"), "{why}");
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    t.deaf = Some(1);
    // Time leaps on with the question, so the lease is over.
    assert_eq!(t.read(0), None);
    let why = t.cores[0].explain();
    assert!(why.contains("a read of thing waits until osd.1"), "{why}");
}

#[test]
fn an_object_travels_in_pieces_of_bounded_size() {
    let mut t = Trio::with(Config { chunk_bytes: 2048, ..Config::default() });
    t.map(&[0], &[]);
    let data = vec![Op::WriteFull { data: vec![7; 9000].into() }];
    let entries = (0..40).map(|n| (format!("key-{n:02}").into(), vec![n; 500].into())).collect();
    let omap = vec![Op::OmapSet { entries }, Op::OmapSetHeader { header: "head".into() }];
    for ops in [data, omap] {
        t.next += 1;
        let r = t.request(oid(), t.next, ops);
        assert!(t.send(0, r).is_some());
    }
    t.map(&[0, 1], &[]);
    assert!(t.cores[0].is_clean(), "{}", t.cores[0].explain());
    assert!(t.largest <= 2048, "a piece of {} bytes", t.largest);
    assert_eq!(t.disks[0], t.disks[1]);
    assert_eq!(t.disks[1][&oid()].omap.len(), 40);
}

#[test]
fn a_scrub_that_is_due_waits_for_its_slot_and_gives_it_back() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    t.no_slots = true;
    t.queue.push_back((0, Input::Order(Order::ScrubDue { deep: true })));
    t.settle();
    assert!(t.cores[0].is_scrubbing() && t.cores[0].findings().passes == 0, "began without a slot");
    let slot = |granted| (0, Input::Slot { kind: SlotKind::Scrub, holder: OsdId(0), granted });
    t.queue.push_back(slot(true));
    t.settle();
    assert_eq!((t.cores[0].findings().deep, t.cores[0].is_scrubbing()), (1, false));
    assert!(t.cores[0].slots.is_empty(), "{:?}", t.cores[0].slots);
}

#[test]
fn an_operators_scrub_waits_for_no_slot_and_takes_one_that_waits_along() {
    let mut t = two();
    t.ask(0, Op::WriteFull { data: "some".into() });
    t.no_slots = true;
    for order in [Order::ScrubDue { deep: true }, Order::Scrub { deep: false }] {
        t.queue.push_back((0, Input::Order(order)));
    }
    t.settle();
    assert_eq!((t.cores[0].findings().deep, t.cores[0].is_scrubbing()), (1, false));
    assert!(t.cores[0].slots.is_empty(), "{:?}", t.cores[0].slots);
}

/// A member whose copy is bad dies while it is to note that: the damage is found again once the pg is whole again.
fn repairs_a_member_that_died(cfg: Config) -> bool {
    let mut t = Trio::with(cfg);
    t.map(&[0, 1], &[]);
    t.ask(0, Op::WriteFull { data: "some".into() });
    t.rotten.insert((1, oid()));
    t.no_repair = true;
    t.queue.push_back((0, Input::Order(Order::Scrub { deep: true })));
    t.settle();
    assert_eq!((t.cores[0].findings().repaired, t.cores[0].findings().passes), (1, 0));
    t.no_repair = false;
    t.map(&[0], &[]);
    t.map(&[0, 1], &[]);
    assert!(!t.cores[0].is_scrubbing());
    t.rotten.is_empty() && t.cores[0].findings().deep > 0
}

#[test]
fn a_scrub_begins_anew_when_its_primary_goes_on_to_the_next_interval() {
    assert!(repairs_a_member_that_died(Config::default()));
    #[cfg(feature = "mutants")]
    {
        let mutant = Some(crate::mutant::Mutant::ForgetScrubs);
        assert!(!repairs_a_member_that_died(Config { mutant, ..Config::default() }), "this proves nothing");
    }
}

#[test]
fn many_writes_of_one_object_are_under_way_at_a_time_and_keep_their_order() {
    let mut t = two();
    t.deaf = Some(1);
    for tid in 100..120 {
        let mut r = t.request(oid(), tid, vec![Op::Append { data: vec![b'a' + (tid - 100) as u8].into() }]);
        r.reqid.session = SessionId(tid % 3);
        t.queue.push_back((0, Input::Op(r)));
    }
    t.settle();
    let why = t.cores[0].explain();
    assert!(why.starts_with("20 writes are not safe yet"), "{why}");
    assert!(t.replies.is_empty(), "answered, although a member has not got it: {:?}", t.replies);
    t.deaf = None;
    for (me, other) in [(0, 1), (1, 0)] {
        t.queue.push_back((me, Input::PeerReset { osd: OsdId(other) }));
    }
    t.settle();
    let mut versions = Vec::new();
    for tid in 100..120 {
        let Some(Reply::Done { outcome: Ok(_), version }) = t.replies.remove(&tid) else { panic!("{tid}: no answer") };
        versions.push(version);
    }
    assert!(versions.is_sorted() && versions[0] != versions[19], "{versions:?}");
    assert_eq!(t.read(0).unwrap().unwrap(), "abcdefghijklmnopqrst");
    assert!(t.disks[0] == t.disks[1]);
}

#[test]
fn a_scrub_holds_writes_back_for_one_window_and_reads_for_nothing() {
    let mut t = Trio::with(Config { scrub_objects: 2, ..Config::default() });
    t.map(&[0, 1], &[]);
    let object = |n: u32| ObjectId { hash: n, name: format!("thing-{n}").into(), ..oid() };
    let send = |t: &mut Trio, n: u32, op: Op| {
        t.next += 1;
        let r = t.request(object(n), t.next, vec![op]);
        (t.next, t.send(0, r).is_some())
    };
    for n in 0..6 {
        assert!(send(&mut t, n, Op::WriteFull { data: "some".into() }).1);
    }
    // In which of the windows of two an object is, the order of hashes says.
    let mut order: Vec<u32> = (0..6).collect();
    order.sort_by_key(|n| object(*n));
    let (first, second, last) = (order[0], order[2], order[5]);
    t.scrubs = 0;
    t.queue.push_back((0, Input::Order(Order::Scrub { deep: true })));
    t.settle();
    // The other member has not said yet what it holds of the first window.
    assert!(send(&mut t, first, Op::Read { offset: 0, len: 9 }).1, "a read waits");
    assert!(send(&mut t, last, Op::Append { data: "more".into() }).1, "a write outside the window waits");
    let (waits, answered) = send(&mut t, first, Op::Append { data: "more".into() });
    assert!(!answered, "a write changes what is being compared");
    assert!(t.cores[0].explain().contains("until a scrub has compared"), "{}", t.cores[0].explain());
    // Once it says so, the second window is next, and only writes to that one wait.
    t.scrubs = 1;
    t.queue.push_back((0, Input::PeerReset { osd: OsdId(1) }));
    t.settle();
    assert!(t.replies.remove(&waits).is_some(), "the write waits for more than its window");
    assert!(t.cores[0].is_scrubbing() && !send(&mut t, second, Op::Append { data: "more".into() }).1);
    t.scrubs = usize::MAX;
    t.queue.push_back((0, Input::PeerReset { osd: OsdId(1) }));
    t.settle();
    assert_eq!((t.cores[0].findings().deep, t.cores[0].findings().found), (1, 0));
    assert!(t.disks[0] == t.disks[1]);
}
