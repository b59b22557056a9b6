//! Each invariant fails when what it watches is broken by hand in a cluster that is otherwise at rest.

use bytes::Bytes;
use nacre_pg::io::{Input, Output, Request, SlotKind};
use nacre_pg::log::ReqId;
use nacre_pg::msg::{Body, PeerMsg};
use nacre_pg::object::INFO_XATTR;
use nacre_pg::op::{Op, OpError, OpResult};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SnapId, Version};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};
use nacre_store::ObjectStore;

use super::*;
use crate::run::{Options, rest};
use crate::scenario::Scenario;
use crate::world::End;

/// A cluster at rest in which some pg holds an object on at least two osds: where one of its copies lies.
fn cluster() -> (World, OsdId, PgId, ObjectId) {
    for seed in 0..50 {
        let w = rest(seed, &Options::default());
        assert_eq!(w.violations, Vec::<String>::new(), "seed {seed}");
        if w.given_up {
            continue;
        }
        let map = std::sync::Arc::clone(w.maps.last());
        for pg in map.pgs() {
            let view = map.view(pg);
            let Some(&osd) = view.acting.last().filter(|_| view.acting.len() > 1) else { continue };
            let core = w.nodes[osd.0 as usize].pgs.get(&pg).map(|(_, g)| g);
            let store = &w.nodes[osd.0 as usize].store;
            let list = store.list(pg, None, usize::MAX).unwrap();
            // One the log still speaks of.
            let known = |o: &ObjectId| core.is_some_and(|g| g.log().iter().any(|e| e.oid == *o));
            let rotten = |o: &ObjectId| w.rotten.iter().any(|(_, _, r)| r.name == o.name);
            let oid = list.into_iter().find(|o| o.snap == SnapId::HEAD && known(o) && !rotten(o));
            if let Some(oid) = oid {
                return (w, osd, pg, oid);
            }
        }
    }
    panic!("no seed leaves an object on two osds");
}

fn tamper(w: &World, osd: OsdId, pg: PgId, op: TxnOp) {
    w.nodes[osd.0 as usize].store.submit(Transaction { pg, ops: vec![op] }, Box::new(|_| {})).unwrap();
}

fn found(w: &World, text: &str) {
    assert!(w.violations.iter().any(|v| v.contains(text)), "{text}: {:?}", w.violations);
}

#[test]
fn a_cluster_at_rest_breaks_nothing() {
    let (mut w, ..) = cluster();
    at_rest(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
}

#[test]
fn copies_that_differ_are_found() {
    let (mut w, osd, pg, oid) = cluster();
    let data = Bytes::from_static(b"not what was written");
    tamper(&w, osd, pg, TxnOp::Write { oid, offset: 0, data, hint: WriteHint::default() });
    equal::check(&mut w);
    found(&w, "differ in");
}

#[test]
fn a_copy_that_is_gone_is_found_missing() {
    let (mut w, osd, pg, oid) = cluster();
    tamper(&w, osd, pg, TxnOp::Remove { oid });
    lacking::check(&mut w);
    found(&w, "not known as missing");
}

#[test]
fn an_object_without_its_record_is_found() {
    let (mut w, osd, pg, oid) = cluster();
    tamper(&w, osd, pg, TxnOp::RemoveXattr { oid, name: Bytes::from_static(INFO_XATTR) });
    equal::check(&mut w);
    found(&w, "has no metadata record");
}

#[test]
fn a_log_beyond_its_bound_is_found() {
    let long =
        |w: &World| w.nodes.iter().flat_map(|n| n.pgs.values()).any(|(_, g)| g.is_clean() && g.log().len() > 100);
    let mut w = (0..50).map(|seed| rest(seed, &Options::default())).find(long).expect("a run with a long log");
    bounds::check(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    for node in &mut w.nodes {
        let mut tight = nacre_pg::state::Config::clone(&node.cfg);
        (tight.log_keep, tight.log_slack) = (0, 0);
        node.cfg = std::sync::Arc::new(tight);
    }
    bounds::check(&mut w);
    found(&w, "are allowed");
}

#[test]
fn a_lost_write_is_found_in_the_history() {
    let (mut w, ..) = cluster();
    let call = w.history.objects.values_mut().flatten().rfind(|c| {
        let reads = c.ops.iter().any(|o| matches!(o, Op::Read { .. }));
        reads && matches!(c.answer, Some((_, Ok(_))))
    });
    let (_, outcome) = call.unwrap().answer.as_mut().unwrap();
    *outcome = Ok(vec![OpResult::Data(Bytes::from_static(b"from nowhere"))]);
    histories::check(&mut w);
    found(&w, "no write explains");
}

/// An acknowledged write of some core's log that still holds it.
fn acknowledged(w: &World) -> (OsdId, PgId, ReqId) {
    let map = w.maps.last();
    let found = map.pgs().into_iter().find_map(|pg| {
        let primary = map.view(pg).primary?;
        let (_, core) = w.nodes[primary.0 as usize].pgs.get(&pg)?;
        let mut held = core.log().iter().filter_map(|e| e.reqid);
        held.find(|r| w.ledger.acked.contains_key(r)).map(|r| (primary, pg, r))
    });
    found.expect("a log that holds an acknowledged write")
}

#[test]
fn an_acknowledged_write_that_a_log_lacks_is_found() {
    let (mut w, ..) = cluster();
    acked::check_all(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    let (_, _, reqid) = acknowledged(&w);
    let same = w.ledger.acked[&reqid].clone();
    w.ledger.acked.insert(ReqId { tid: 1 << 40, ..reqid }, same);
    acked::check_all(&mut w);
    found(&w, "an acknowledged write is lost");
}

#[test]
fn a_primary_that_begins_to_serve_without_an_acknowledged_write_is_found() {
    let (mut w, ..) = cluster();
    let (osd, pg, reqid) = acknowledged(&w);
    w.ledger.acked.get_mut(&reqid).unwrap().version.counter += 1;
    ledger::serves(&mut w, osd, pg);
    found(&w, "an acknowledged write is lost");
}

#[test]
fn two_primaries_of_one_interval_are_found() {
    let (mut w, ..) = cluster();
    let (osd, pg, _) = acknowledged(&w);
    ledger::serves(&mut w, osd, pg);
    assert_eq!(w.violations, Vec::<String>::new());
    w.ledger.served.get_mut(&pg).unwrap().by = OsdId(99);
    ledger::serves(&mut w, osd, pg);
    found(&w, "both serve interval");
}

fn asked(w: &World, kind: ledger::Kind) -> (OsdId, ledger::Asked) {
    let (osd, pg, reqid) = acknowledged(w);
    let oid = w.ledger.acked[&reqid].oid.clone();
    (osd, ledger::Asked { client: (reqid.session.0 - 1) as u32, tid: reqid.tid, pg, oid, kind })
}

#[test]
fn a_request_that_takes_effect_twice_is_found() {
    let (mut w, ..) = cluster();
    let (osd, asked) = asked(&w, ledger::Kind::Write);
    let outcome = w.ledger.acked[&asked.reqid()].outcome.clone();
    ledger::answered(&mut w, osd, &asked, &outcome, Version::default());
    assert_eq!(w.violations, Vec::<String>::new());
    w.ledger.acked.get_mut(&asked.reqid()).unwrap().version.counter += 1;
    ledger::answered(&mut w, osd, &asked, &outcome, Version::default());
    found(&w, "took effect twice");
}

#[test]
fn another_answer_to_the_same_request_is_found() {
    let (mut w, ..) = cluster();
    let (osd, asked) = asked(&w, ledger::Kind::Write);
    ledger::answered(&mut w, osd, &asked, &Err(OpError::Exists { at: 7 }), Version::default());
    found(&w, "and once more");
}

#[test]
fn an_answer_that_is_not_remembered_is_found() {
    let (mut w, ..) = cluster();
    let (osd, mut asked) = asked(&w, ledger::Kind::Write);
    asked.tid = 1 << 40;
    ledger::answered(&mut w, osd, &asked, &Ok(Vec::new()), Version::default());
    found(&w, "does not remember it");
}

#[test]
fn an_identity_twice_in_a_log_is_found() {
    let (mut w, ..) = cluster();
    once::check(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    let (osd, pg, _) = acknowledged(&w);
    let twice = |log: &nacre_pg::log::Log| {
        let mut again = log.iter().rfind(|e| e.reqid.is_some()).unwrap().clone();
        again.version.counter += 1;
        log.iter().cloned().chain([again]).collect::<Vec<_>>()
    };
    let entries = twice(w.nodes[osd.0 as usize].pgs[&pg].1.log());
    let bad = once::twice(&format!("{osd} pg {pg}"), entries.iter());
    assert!(bad[0].contains("took effect twice"), "{bad:?}");
}

#[test]
fn a_read_from_a_stale_primary_is_found() {
    let (mut w, osd, pg, oid) = cluster();
    // A client asks now; another primary has served for long.
    w.ask_op(0, &oid.name, vec![Op::Read { offset: 0, len: 9 }], SnapId::HEAD);
    let tid = w.history.objects[&oid.name].last().unwrap().tid;
    let read = ledger::Asked { client: 0, tid, pg, oid, kind: ledger::Kind::Read };
    let outcome = Ok(Vec::new());
    ledger::answered(&mut w, osd, &read, &outcome, Version::default());
    assert_eq!(w.violations, Vec::<String>::new());
    let pg_num = w.maps.last().pool.pg_num;
    let later = Epoch(w.maps.last().epoch.0 + 1);
    w.ledger.served.insert(pg, ledger::Served { by: OsdId(99), interval: later, pg_num, since: 0 });
    ledger::answered(&mut w, osd, &read, &outcome, Version::default());
    found(&w, "a stale read");
}

#[test]
fn a_snapshot_that_changes_is_found() {
    // A run in which the comparison compares something.
    let runs = (0..200).filter(|s| Scenario::draw(*s).snapshots).map(|s| rest(s, &Options::default()));
    let mut w = runs.into_iter().find(|w| !frozen::pairs(&w.history).is_empty()).expect("a snapshot read twice");
    frozen::check(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    let (name, client, tid) = {
        let (name, _, again) = frozen::pairs(&w.history)[0];
        (name.clone(), again.client, again.tid)
    };
    let calls = w.history.objects.get_mut(&name).unwrap();
    let call = calls.iter_mut().find(|c| c.client == client && c.tid == tid).unwrap();
    call.answer.as_mut().unwrap().1 = Ok(vec![OpResult::Data(Bytes::from_static(b"something else"))]);
    frozen::check(&mut w);
    found(&w, "does not read what it froze");
}

#[test]
fn a_slot_that_is_kept_is_found() {
    let (mut w, osd, pg, _) = cluster();
    slots::check(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    let what = Request::Slot { kind: SlotKind::Local, holder: osd, priority: 5 };
    w.slot_asked(osd, pg, 1, &what);
    slots::check(&mut w);
    found(&w, "is never given back");
}

#[test]
fn an_answer_to_a_notify_that_nobody_gave_is_found() {
    let heard = |w: &World| w.watches.sent.len() > 3;
    let mut w = (0..100).map(|s| rest(s, &Options::default())).find(heard).expect("a run with notifies");
    notify::check(&mut w);
    assert_eq!(w.violations, Vec::<String>::new());
    w.watches.sent.clear();
    notify::check(&mut w);
    found(&w, "that it never gave");
}

#[test]
fn a_cluster_that_never_becomes_quiet_is_found() {
    let (mut w, osd, ..) = cluster();
    // The process is gone, and nobody starts it again.
    w.crash(osd);
    alive::settle(&mut w);
    found(&w, "healed, but not quiet in time");
}

#[test]
fn a_request_that_is_never_answered_is_found() {
    let (mut w, _, _, oid) = cluster();
    let client = w.clients.iter().position(|c| c.alive).unwrap() as u32;
    for osd in 0..w.nodes.len() as u32 {
        w.cuts.insert((End::Osd(osd), End::Client(client)));
    }
    w.ask_op(client, &oid.name, vec![Op::Read { offset: 0, len: 9 }], SnapId::HEAD);
    alive::settle(&mut w);
    found(&w, "healed, but not quiet in time");
}

#[test]
fn an_answer_that_is_not_durable_everywhere_is_found() {
    // A pg that was written in its present interval.
    let written = |w: &World| {
        let map = w.maps.last();
        map.pgs().into_iter().find_map(|pg| {
            let by = map.view(pg).primary?;
            let (_, core) = w.nodes[by.0 as usize].pgs.get(&pg)?;
            let e = core.log().iter().rfind(|e| e.reqid.is_some() && e.version.epoch == core.info().interval)?;
            let member = *map.view(pg).acting.last()?;
            Some((by, pg, e.version, e.oid.clone(), member))
        })
    };
    let mut runs = (0..50).map(|s| rest(s, &Options::default())).filter_map(|w| Some((written(&w)?, w)));
    let ((by, pg, version, oid, member), mut w) = runs.next().expect("a write of the last interval");
    let read = ledger::Asked { client: 0, tid: 1 << 40, pg, oid, kind: ledger::Kind::Read };
    ledger::answered(&mut w, by, &read, &Ok(Vec::new()), version);
    assert_eq!(w.violations, Vec::<String>::new());
    w.ledger.disks.durable.remove(&(member, pg, version));
    ledger::answered(&mut w, by, &read, &Ok(Vec::new()), version);
    found(&w, "which is not durable on");
}

#[test]
fn an_effect_of_a_stale_message_is_found() {
    let (mut w, osd, pg, _) = cluster();
    let now = w.nodes[osd.0 as usize].pgs[&pg].1.info().interval;
    let msg = |interval| PeerMsg { epoch: now, interval, body: Body::QueryLog { since: Version::default() } };
    let input = |interval| Input::Peer { from: osd, msg: msg(interval) };
    assert!(!interval::is_stale(&w, osd, pg, &input(now)));
    let old = input(Epoch(now.0 - 1));
    assert!(interval::is_stale(&w, osd, pg, &old));
    // The core ignores it; one that answers is found out by its output.
    w.input(osd, pg, old);
    assert_eq!(w.violations, Vec::<String>::new());
    assert!(interval::effect(osd, pg, &[Output::Gone]).unwrap().contains("an interval that is over"));
}
