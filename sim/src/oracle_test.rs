//! Each invariant fails when what it watches is broken by hand in a cluster that is otherwise at rest.

use bytes::Bytes;
use nacre_pg::object::INFO_XATTR;
use nacre_proto::ids::{ObjectId, OsdId, PgId, SnapId};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};
use nacre_store::ObjectStore;

use super::*;
use crate::run::{Options, rest};

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
        let reads = c.ops.iter().any(|o| matches!(o, nacre_pg::op::Op::Read { .. }));
        reads && matches!(c.answer, Some((_, Ok(_))))
    });
    let (_, outcome) = call.unwrap().answer.as_mut().unwrap();
    *outcome = Ok(vec![nacre_pg::op::OpResult::Data(Bytes::from_static(b"from nowhere"))]);
    histories::check(&mut w);
    found(&w, "no write explains");
}
