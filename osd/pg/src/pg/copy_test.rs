//! Copies: all of an object at one version, in pieces, whatever gets lost on the way.

use nacre_proto::ids::{ObjectId, SnapId, Version};

use crate::io::Input;
use crate::op::{Op, OpError, Reply};
use crate::state::Config;
use crate::trio::{Trio, oid};

fn source() -> ObjectId {
    ObjectId { name: "model".into(), hash: 9, ..oid() }
}

/// Two osds, and a source of several pieces with everything an object can have.
fn with_source() -> Trio {
    let mut t = Trio::with(Config { chunk_bytes: 1000, max_copy: 8000, ..Config::default() });
    t.map(&[0, 1], &[]);
    let entries = (0..9).map(|n| (format!("key-{n}").into(), vec![n; 300].into())).collect();
    write(
        &mut t,
        source(),
        vec![
            Op::WriteFull { data: (0..3500_u32).map(|n| n as u8).collect::<Vec<_>>().into() },
            Op::SetXattr { name: "kind".into(), value: "round".into() },
            Op::OmapSet { entries },
            Op::OmapSetHeader { header: "head".into() },
        ],
    );
    t
}

fn write(t: &mut Trio, to: ObjectId, ops: Vec<Op>) -> Option<Reply> {
    t.next += 1;
    let r = t.request(to, t.next, ops);
    t.send(0, r)
}

fn copy(t: &mut Trio, version: Option<Version>) -> Result<Version, OpError> {
    match write(t, oid(), vec![Op::CopyFrom { from: source(), version }]) {
        Some(Reply::Done { outcome, version }) => outcome.map(|_| version),
        other => panic!("a copy was answered with {other:?}"),
    }
}

fn check(t: &Trio) {
    let (is, was) = (&t.disks[0][&oid()], &t.disks[0][&source()]);
    assert_eq!((&is.bytes, &is.omap, &is.header), (&was.bytes, &was.omap, &was.header));
    assert_eq!(is.xattrs.get(&b"ukind"[..]), was.xattrs.get(&b"ukind"[..]));
    assert_eq!(t.disks[0], t.disks[1]);
    assert!(t.cores[0].is_clean());
}

#[test]
fn a_copy_is_all_of_the_object_and_replaces_what_was() {
    let mut t = with_source();
    assert!(copy(&mut t, None).is_ok());
    check(&t);
    let before =
        vec![Op::WriteFull { data: vec![1; 5000].into() }, Op::SetXattr { name: "old".into(), value: "x".into() }];
    write(&mut t, oid(), before);
    assert!(copy(&mut t, None).is_ok());
    check(&t);
    assert_eq!(t.disks[0][&oid()].xattrs.len(), 2, "its own record and the one that was copied");
    assert_eq!(t.cores[0].info().stats.bytes, 7000);
}

#[test]
fn any_one_message_may_get_lost() {
    for lose in 1..20 {
        let mut t = with_source();
        t.lose = lose;
        assert!(copy(&mut t, None).is_ok());
        check(&t);
    }
}

#[test]
fn only_the_version_that_is_wanted_is_copied() {
    let mut t = with_source();
    let Some(Reply::Done { version, .. }) = write(&mut t, source(), vec![Op::Stat]) else { panic!("no answer") };
    let next = Version { counter: version.counter + 1, ..version };
    assert_eq!(copy(&mut t, Some(next)), Err(OpError::Guard { at: 0 }));
    assert!(copy(&mut t, Some(version)).is_ok());
    check(&t);
}

#[test]
fn what_cannot_be_copied_is_refused_for_good() {
    let mut t = with_source();
    write(&mut t, source(), vec![Op::Remove]);
    assert_eq!(copy(&mut t, None), Err(OpError::NotFound { at: 0 }));
    write(&mut t, source(), vec![Op::WriteFull { data: vec![1; 9000].into() }]);
    assert_eq!(copy(&mut t, None), Err(OpError::TooBig { at: 0 }));
    assert!(!t.disks[0].contains_key(&oid()));
    let twice = Op::CopyFrom { from: source(), version: None };
    let reply = write(&mut t, oid(), vec![twice.clone(), twice]);
    assert!(matches!(reply, Some(Reply::Done { outcome: Err(OpError::Invalid { .. }), .. })));
}

#[test]
fn a_source_that_changes_on_the_way_is_read_again_as_one_version() {
    let mut t = with_source();
    t.next += 1;
    let r = t.request(oid(), t.next, vec![Op::CopyFrom { from: source(), version: None }]);
    let id = r.id.0;
    t.queue.push_back((0, Input::Op(r)));
    // Behind the first piece: half of the bytes are of the old version then.
    let mut change = t.request(source(), 700, vec![Op::WriteFull { data: vec![5; 2500].into() }]);
    change.epoch = t.view.epoch;
    t.after_carried = Some((3, (0, Input::Op(change))));
    t.settle();
    assert!(matches!(t.replies.get(&id), Some(Reply::Done { outcome: Ok(_), .. })), "{:?}", t.replies);
    assert_eq!(t.disks[0][&oid()].bytes, vec![5; 2500]);
    check(&t);
}

#[test]
fn copies_in_a_circle_and_of_a_snapshot_end() {
    let mut t = with_source();
    write(&mut t, oid(), vec![Op::WriteFull { data: "other".into() }]);
    let (a, b) = (
        t.request(oid(), 801, vec![Op::CopyFrom { from: source(), version: None }]),
        t.request(source(), 802, vec![Op::CopyFrom { from: oid(), version: None }]),
    );
    t.queue.push_back((0, Input::Op(a)));
    t.queue.push_back((0, Input::Op(b)));
    t.settle();
    assert!(t.replies.contains_key(&801) && t.replies.contains_key(&802), "they wait for each other");
    // A snapshot of itself, after it was changed.
    let mut t = with_source();
    write(&mut t, oid(), vec![Op::WriteFull { data: "first".into() }]);
    t.next += 1;
    let mut r = t.request(oid(), t.next, vec![Op::WriteFull { data: "second".into() }]);
    r.snapc = crate::op::SnapContext { seq: SnapId(4), snaps: vec![SnapId(4)] };
    t.send(0, r);
    let from = ObjectId { snap: SnapId(4), ..oid() };
    assert!(write(&mut t, source(), vec![Op::CopyFrom { from, version: None }]).is_some());
    assert_eq!(t.disks[0][&source()].bytes, b"first");
}
