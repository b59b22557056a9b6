//! Each class: what it answers, what it refuses, and the bytes of its inputs.

use bytes::Bytes;
use nacre_proto::ids::{PoolId, SessionId, SnapId};

use super::image::{
    Child, FEATURE_MAP, FLAG_MAP_BAD, Flags, Held as HeldImage, Image, LIMITS, MapSet, NewSnap, Note, Parent, Resize,
    Snap, Spend, Spent, Trimmed,
};
use super::lock::{Assert, Break, Kind as LockKind, Lock, LockState, Named, Renew, Unlock};
use super::log::{Append, LogLine, NewLine};
use super::numops::Change;
use super::queue::{Entries, Init, Item, Status, Take, Upto};
use super::refcount::{Tag, Tags};
use super::timeindex::{Entry, Set};
use super::version::{At, Condition, Held, Step};
use super::*;
use crate::op::{Op, OpResult};
use crate::testkit::Bench;

fn b(s: &'static str) -> Bytes {
    Bytes::from_static(s.as_bytes())
}

fn code_of<T: std::fmt::Debug>(r: Result<T, OpError>) -> u32 {
    match r {
        Err(OpError::Class { code, .. }) => code,
        other => panic!("not refused by the class: {other:?}"),
    }
}

fn out<T: Codec>(r: Result<Bytes, OpError>) -> T {
    decode(&r.unwrap()).unwrap()
}

fn want(tag: &'static str, kind: LockKind) -> Lock {
    Lock { name: b("l"), kind, cookie: b("c"), tag: b(tag), ..Lock::default() }
}

#[test]
fn an_unknown_class_or_method_is_named_as_such() {
    let mut o = Bench::new();
    for (class, method) in [("nothing", "add"), ("numops", "nothing")] {
        assert_eq!(o.call(class, method, &0u64), Err(OpError::NoClass { at: 0 }));
    }
}

#[test]
fn input_that_is_not_understood_is_refused_and_nothing_is_made() {
    for class in CLASSES {
        for m in class.methods() {
            let mut o = Bench::new();
            let call = |input| Op::Call { class: class.name().to_owned(), method: m.name.to_owned(), input };
            for input in [b("\x02\x00\x00"), Bytes::from_static(&[1, 0xff, 0xff, 0xff, 0xff])] {
                let r = o.run(&[call(input)]);
                let refused = matches!(r, Err(OpError::Class { code: code::MALFORMED, .. } | OpError::NotFound { .. }));
                assert!(refused || !m.writes, "{} {}: {r:?}", class.name(), m.name);
                assert!(o.info.is_none(), "{} {} made an object of nonsense", class.name(), m.name);
            }
            let long = Bytes::from(vec![1; INPUT_MAX + 1]);
            assert_eq!(code_of(o.run(&[call(long)])), code::LIMIT, "{} {}", class.name(), m.name);
        }
    }
}

#[test]
fn a_refusal_undoes_the_whole_vector() {
    let mut o = Bench::new();
    let bad = Op::Call { class: "numops".to_owned(), method: "add".to_owned(), input: Bytes::new() };
    let e = o.run(&[Op::WriteFull { data: b("x") }, bad]).unwrap_err();
    assert_eq!(e, OpError::Class { at: 1, code: code::MALFORMED });
    assert!(o.info.is_none());
}

#[test]
fn numbers_add_and_multiply_and_never_wrap() {
    let mut o = Bench::new();
    let by = |by| Change { key: b("n"), by };
    assert_eq!(out::<i64>(o.call("numops", "add", &by(5))), 5);
    assert_eq!(out::<i64>(o.call("numops", "mul", &by(-3))), -15);
    assert_eq!(o.head().omap[&b("n")], b("-15"));
    assert_eq!(code_of(o.call("numops", "add", &by(i64::MIN))), code::NUMBER);
    o.run(&[Op::OmapSet { entries: vec![(b("n"), b("many"))] }]).unwrap();
    assert_eq!(code_of(o.call("numops", "add", &by(1))), code::NUMBER);
}

#[test]
fn two_calls_of_one_vector_see_each_other() {
    let mut o = Bench::new();
    let input = encode(&Change { key: b("n"), by: 1 });
    let op = Op::Call { class: "numops".to_owned(), method: "add".to_owned(), input };
    let r = o.run(&[op.clone(), op]).unwrap();
    assert_eq!(r[1], OpResult::Data(encode(&2i64)));
}

#[test]
fn an_exclusive_lock_is_held_by_one() {
    let mut o = Bench::new();
    assert_eq!(out::<u64>(o.call("lock", "lock", &want("a", LockKind::Exclusive))), 1);
    assert_eq!(code_of(o.call("lock", "lock", &want("a", LockKind::Exclusive))), code::EXISTS);
    o.session = 2;
    assert_eq!(code_of(o.call("lock", "lock", &want("b", LockKind::Exclusive))), code::BUSY);
    assert_eq!(code_of(o.call("lock", "lock", &want("b", LockKind::Shared))), code::BUSY);
    assert_eq!(code_of(o.call("lock", "unlock", &Unlock { name: b("l"), cookie: b("c") })), code::ABSENT);
    o.session = 1;
    o.call("lock", "unlock", &Unlock { name: b("l"), cookie: b("c") }).unwrap();
    o.session = 2;
    assert_eq!(out::<u64>(o.call("lock", "lock", &want("b", LockKind::Exclusive))), 2, "a fence is never given twice");
}

#[test]
fn a_shared_lock_is_held_by_many_and_upgraded_by_the_last() {
    let mut o = Bench::new();
    for session in 1..=3 {
        o.session = session;
        o.call("lock", "lock", &want("a", LockKind::Shared)).unwrap();
    }
    let up = Lock { renew: Renew::Must, ..want("a", LockKind::Exclusive) };
    assert_eq!(code_of(o.call("lock", "lock", &up)), code::BUSY);
    for session in 1..=2 {
        o.session = session;
        o.call("lock", "unlock", &Unlock { name: b("l"), cookie: b("c") }).unwrap();
    }
    o.session = 3;
    o.call("lock", "lock", &up).unwrap();
    let info: LockState = out(o.call("lock", "info", &Named { name: b("l"), tag: Bytes::new() }));
    assert_eq!((info.kind, info.holds.len()), (LockKind::Exclusive, 1));
    assert_eq!(out::<Vec<Bytes>>(o.call("lock", "list", &0u8)), vec![b("l")]);
}

#[test]
fn a_lock_expires_and_is_renewed() {
    let mut o = Bench::new();
    let timed = |tag, renew| Lock { last_ms: 100, renew, ..want(tag, LockKind::Exclusive) };
    let fence: u64 = out(o.call("lock", "lock", &timed("a", Renew::No)));
    let held = Assert { name: b("l"), cookie: b("c"), tag: b("a"), fence };
    o.wall_ms += 60;
    assert_eq!(out::<u64>(o.call("lock", "lock", &timed("a", Renew::Must))), fence, "renewing keeps the fence");
    o.wall_ms += 60;
    o.call("lock", "assert", &held).unwrap();
    o.wall_ms += 60;
    assert_eq!(code_of(o.call("lock", "assert", &held)), code::ABSENT);
    assert_eq!(code_of(o.call("lock", "lock", &timed("a", Renew::Must))), code::ABSENT);
    o.session = 2;
    assert!(out::<u64>(o.call("lock", "lock", &timed("b", Renew::May))) > fence);
}

#[test]
fn breaking_fences_the_holders_identity() {
    let mut o = Bench::new();
    let fence: u64 = out(o.call("lock", "lock", &want("a", LockKind::Exclusive)));
    o.session = 2;
    let hold = Break { name: b("l"), session: SessionId(1), cookie: b("c") };
    o.call("lock", "break", &hold).unwrap();
    assert_eq!(code_of(o.call("lock", "break", &hold)), code::ABSENT);
    let next: u64 = out(o.call("lock", "lock", &want("b", LockKind::Exclusive)));
    assert!(next > fence);
    // The old holder's guarded write stops at the guard, from whatever session.
    for session in [1, 3] {
        o.session = session;
        let guard = encode(&Assert { name: b("l"), cookie: b("c"), tag: b("a"), fence: 0 });
        let guard = Op::Call { class: "lock".to_owned(), method: "assert".to_owned(), input: guard };
        let e = o.run(&[guard, Op::WriteFull { data: b("late") }]).unwrap_err();
        assert_eq!(e, OpError::Class { at: 0, code: code::FENCED });
        assert_eq!(code_of(o.call("lock", "lock", &want("a", LockKind::Shared))), code::FENCED);
    }
    assert!(o.head().data.is_empty());
    o.call("lock", "unfence", &Named { name: b("l"), tag: b("a") }).unwrap();
    assert_eq!(code_of(o.call("lock", "lock", &want("a", LockKind::Shared))), code::BUSY);
}

#[test]
fn a_version_rises_under_conditions() {
    let mut o = Bench::new();
    let step = |when| Step { when, tag: b("life") };
    let held: Held = out(o.call("version", "inc", &step(vec![])));
    assert_eq!(held, Held { number: 1, tag: b("life") });
    let is = |at, number| vec![Condition { at, than: Held { number, tag: b("life") } }];
    for (at, number, holds) in [
        (At::Is, 1, true),
        (At::Is, 2, false),
        (At::IsNot, 1, false),
        (At::IsNot, 2, true),
        (At::Least, 1, true),
        (At::Least, 2, false),
        (At::Most, 1, true),
        (At::Most, 0, false),
        (At::Tag, 9, true),
    ] {
        assert_eq!(o.call("version", "check", &is(at, number)).is_ok(), holds, "{at:?} {number}");
    }
    assert_eq!(code_of(o.call("version", "inc", &step(is(At::Is, 7)))), code::CONDITION);
    o.call("version", "set", &Held { number: u64::MAX, tag: b("x") }).unwrap();
    assert_eq!(code_of(o.call("version", "inc", &step(vec![]))), code::NUMBER);
    assert_eq!(out::<Held>(o.call("version", "read", &0u8)).tag, b("x"));
}

#[test]
fn the_last_reference_removes_the_object() {
    let mut o = Bench::new();
    let tag = |t| Tag { tag: b(t) };
    for t in ["a", "b", "a"] {
        o.call("refcount", "get", &tag(t)).unwrap();
    }
    assert_eq!(out::<Tags>(o.call("refcount", "list", &0u8)).tags.len(), 2);
    assert!(!out::<bool>(o.call("refcount", "put", &tag("a"))));
    assert_eq!(code_of(o.call("refcount", "put", &tag("a"))), code::ABSENT);
    assert!(out::<bool>(o.call("refcount", "put", &tag("b"))));
    assert!(o.info.is_none());
    assert_eq!(o.call("refcount", "put", &tag("b")), Err(OpError::NotFound { at: 0 }));
    o.call("refcount", "get", &tag("a")).unwrap();
    assert!(!out::<bool>(o.call("refcount", "set", &Tags { tags: [b("x"), b("y")].into() })));
    assert!(out::<bool>(o.call("refcount", "set", &Tags::default())));
}

#[test]
fn a_queue_gives_what_was_put_once_and_in_order() {
    let mut o = Bench::new();
    o.call("queue", "init", &Init { max_bytes: 10 }).unwrap();
    assert_eq!(out::<u64>(o.call("queue", "put", &Entries { items: vec![b("aa"), b("bb"), b("cc")] })), 1);
    assert_eq!(out::<u64>(o.call("queue", "put", &Entries { items: vec![b("dd")] })), 4);
    assert_eq!(code_of(o.call("queue", "put", &Entries { items: vec![b("eee")] })), code::FULL);
    let taken: Vec<Item> = out(o.call("queue", "take", &Take { max: 2 }));
    assert_eq!(taken, [Item { number: 1, data: b("aa") }, Item { number: 2, data: b("bb") }]);
    let (rest, more): (Vec<Item>, bool) = out(o.call("queue", "list", &Page { after: Bytes::new(), max: 1 }));
    assert_eq!((rest[0].number, more), (3, true));
    let after = Bytes::copy_from_slice(&3u64.to_be_bytes());
    let (rest, more): (Vec<Item>, bool) = out(o.call("queue", "list", &Page { after, max: 9 }));
    assert_eq!((rest[0].number, more), (4, false));
    o.call("queue", "remove", &Upto { number: 3 }).unwrap();
    let st: Status = out(o.call("queue", "status", &0u8));
    assert_eq!(st, Status { next: 5, first: 4, bytes: 2, max_bytes: 10 });
    assert_eq!(out::<Vec<Item>>(o.call("queue", "take", &Take { max: 9 })).len(), 1);
    assert!(out::<Vec<Item>>(o.call("queue", "take", &Take { max: 9 })).is_empty());
    assert_eq!(out::<u64>(o.call("queue", "put", &Entries { items: vec![b("f")] })), 5, "numbers are not given twice");
    assert_eq!(code_of(o.call("queue", "put", &Entries::default())), code::MALFORMED);
}

#[test]
fn a_log_keeps_its_lines_in_order_of_time() {
    let mut o = Bench::new();
    let line = |time_ms, name| NewLine { time_ms, section: b("s"), name: b(name), data: b("d") };
    let marks: Vec<Bytes> = out(o.call("log", "append", &Append { lines: vec![line(0, "x"), line(500, "old")] }));
    // A clock that went back gives no earlier place.
    o.wall_ms = 10;
    let later: Vec<Bytes> = out(o.call("log", "append", &Append { lines: vec![line(0, "y")] }));
    assert!(marks[1] < marks[0] && marks[0] < later[0]);
    let (lines, more): (Vec<LogLine>, bool) = out(o.call("log", "list", &Page { after: Bytes::new(), max: 2 }));
    assert_eq!(lines.iter().map(|l| l.line.name.clone()).collect::<Vec<_>>(), ["old", "x"]);
    assert!(more);
    o.call("log", "trim", &marks[0]).unwrap();
    let (lines, more): (Vec<LogLine>, bool) = out(o.call("log", "list", &Page { after: Bytes::new(), max: 9 }));
    assert_eq!((lines[0].mark.clone(), lines.len(), more), (later[0].clone(), 1, false));
    assert_eq!(code_of(o.call("log", "trim", &b("short"))), code::MALFORMED);
}

#[test]
fn a_time_index_finds_and_trims_by_time() {
    let mut o = Bench::new();
    let entry = |time_ms, key| Entry { time_ms, key: b(key), value: b("v") };
    let add = Set { entries: vec![entry(5, "b"), entry(5, "a"), entry(9, "c"), entry(12, "d")] };
    o.call("timeindex", "add", &add).unwrap();
    o.call("timeindex", "add", &add).unwrap();
    let list = |o: &mut Bench, from: u64, to: u64, after: Bytes, max| -> (Vec<(Bytes, Entry)>, bool) {
        out(o.call("timeindex", "list", &((from, to), Page { after, max })))
    };
    let (found, more) = list(&mut o, 5, 12, Bytes::new(), 2);
    assert_eq!(found.iter().map(|(_, e)| e.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(more);
    let (found, more) = list(&mut o, 5, 12, found[1].0.clone(), 9);
    assert_eq!(found.iter().map(|(_, e)| e.key.clone()).collect::<Vec<_>>(), ["c"]);
    assert!(!more);
    assert!(list(&mut o, 6, 9, Bytes::new(), 9).0.is_empty());
    o.call("timeindex", "trim", &(0u64, 10u64)).unwrap();
    assert_eq!(list(&mut o, 0, u64::MAX, Bytes::new(), 9).0.len(), 1);
    assert_eq!(code_of(o.call("timeindex", "trim", &(3u64, 3u64))), code::MALFORMED);
    assert_eq!(code_of(o.call("timeindex", "add", &Set { entries: vec![entry(1, "")] })), code::MALFORMED);
}

#[test]
fn a_call_that_touches_too_much_is_refused() {
    let mut o = Bench::new();
    let items = |n: usize| Entries { items: vec![Bytes::new(); n] };
    assert_eq!(code_of(o.call("queue", "put", &items(STEPS_MAX as usize + 1))), code::LIMIT);
    let lines = vec![NewLine { time_ms: 1, ..NewLine::default() }; 1001];
    assert_eq!(code_of(o.call("log", "append", &Append { lines })), code::LIMIT);
    // An output that would bloat the log is refused, not cut.
    o.call("queue", "put", &Entries { items: vec![Bytes::from(vec![0; KEPT_MAX])] }).unwrap();
    assert_eq!(code_of(o.call("queue", "take", &Take { max: 1 })), code::LIMIT);
}

#[test]
fn what_a_class_keeps_is_not_among_the_users_xattrs() {
    let mut o = Bench::new();
    o.call("version", "inc", &Step::default()).unwrap();
    o.run(&[Op::SetXattr { name: b("mine"), value: b("1") }]).unwrap();
    let r = o.run(&[Op::ListXattrs]).unwrap();
    assert_eq!(r[0], OpResult::Pairs { pairs: vec![(b("mine"), b("1"))], more: false });
}

fn parent() -> Parent {
    Parent { pool: PoolId(2), namespace: b("ns"), image: 9, snap: SnapId(4), overlap: 4096 }
}

fn image() -> Image {
    Image { id: 7, name: "disk".into(), size: 1 << 30, order: 22, parent: Some(parent()), ..Image::default() }
}

/// One whose head needs the second form.
fn striped() -> Image {
    Image { stripe_unit: 65536, stripe_count: 4, data_pool: Some(PoolId(9)), map_since: SnapId(5), ..image() }
}

fn snap() -> Snap {
    Snap { id: SnapId(3), name: "s".into(), size: 1 << 30, taken_ms: 5, parent: Some(parent()), group: Bytes::new() }
}

fn child() -> Child {
    Child { snap: SnapId(3), pool: PoolId(2), namespace: b("ns"), image: 11 }
}

fn made() -> Bench {
    let mut o = Bench::new();
    o.call("image", "create", &image()).unwrap();
    o
}

#[test]
fn an_image_is_made_once_and_gives_back_what_it_was_given() {
    let mut o = made();
    assert_eq!(code_of(o.call("image", "create", &image())), code::EXISTS);
    let held: HeldImage = out(o.call("image", "get", &0u64));
    assert_eq!(held.image, Image { created_ms: 1000, change: 1, ..image() });
    assert!(held.snaps.is_empty());
    let mut odd = Bench::new();
    assert_eq!(code_of(odd.call("image", "create", &Image { order: 9, ..image() })), code::MALFORMED);
    assert_eq!(code_of(odd.call("image", "create", &Image { name: String::new(), ..image() })), code::MALFORMED);
}

#[test]
fn an_image_that_shrank_does_not_grow_before_what_was_cut_off_is_gone() {
    let mut o = made();
    let size = |o: &mut Bench| out::<HeldImage>(o.call("image", "get", &0u64)).image;
    assert_eq!(code_of(o.call("image", "resize", &Resize { size: 1, from: 2 })), code::CONDITION);
    o.call("image", "resize", &Resize { size: 1024, from: 1 << 30 }).unwrap();
    let shrunk = size(&mut o);
    assert_eq!((shrunk.size, shrunk.trim_end), (1024, 1 << 30));
    assert_eq!(shrunk.parent.unwrap().overlap, 1024, "the parent does not show through what was cut off");
    assert_eq!(code_of(o.call("image", "resize", &Resize { size: 4096, from: 1024 })), code::CONDITION);
    o.call("image", "resize", &Resize { size: 512, from: 1024 }).unwrap();
    assert_eq!(size(&mut o).trim_end, 1 << 30, "a second cut does not forget the first");
    assert_eq!(code_of(o.call("image", "trimmed", &Trimmed { size: 1024 })), code::CONDITION);
    o.call("image", "trimmed", &Trimmed { size: 512 }).unwrap();
    o.call("image", "resize", &Resize { size: 4096, from: 512 }).unwrap();
    let grown = size(&mut o);
    assert_eq!((grown.size, grown.trim_end, grown.parent.unwrap().overlap), (4096, 0, 512));
}

#[test]
fn snapshots_of_an_image_have_names_of_their_own_and_rising_numbers() {
    let mut o = made();
    let new = |id, name: &str| NewSnap { id: SnapId(id), name: name.into(), group: Bytes::new() };
    o.call("image", "snap_add", &new(3, "a")).unwrap();
    assert_eq!(code_of(o.call("image", "snap_add", &new(4, "a"))), code::EXISTS);
    assert_eq!(code_of(o.call("image", "snap_add", &new(3, "b"))), code::CONDITION);
    o.call("image", "resize", &Resize { size: 2048, from: 1 << 30 }).unwrap();
    o.call("image", "snap_add", &new(5, "b")).unwrap();
    assert_eq!(code_of(o.call("image", "snap_rename", &new(5, "a"))), code::EXISTS);
    o.call("image", "snap_rename", &new(5, "c")).unwrap();
    let held: HeldImage = out(o.call("image", "get", &0u64));
    let seen: Vec<_> = held.snaps.iter().map(|s| (s.id.0, s.name.as_str(), s.size)).collect();
    assert_eq!(seen, [(3, "a", 1 << 30), (5, "c", 2048)]);
    o.call("image", "revert", &3u64).unwrap();
    let back = out::<HeldImage>(o.call("image", "get", &0u64)).image;
    assert_eq!((back.size, back.parent), (1 << 30, Some(parent())));
    assert_eq!(code_of(o.call("image", "remove", &0u64)), code::BUSY);
    o.call("image", "snap_remove", &5u64).unwrap();
    assert_eq!(code_of(o.call("image", "snap_remove", &5u64)), code::ABSENT);
    o.call("image", "snap_remove", &3u64).unwrap();
    // A number that was used stays used.
    assert_eq!(code_of(o.call("image", "snap_add", &new(5, "d"))), code::CONDITION);
    o.call("image", "remove", &0u64).unwrap();
    assert!(o.info.is_none());
}

#[test]
fn a_snapshot_with_a_child_stays() {
    let mut o = made();
    assert_eq!(code_of(o.call("image", "child_add", &child())), code::ABSENT);
    o.call("image", "snap_add", &NewSnap { id: SnapId(3), name: "a".into(), group: Bytes::new() }).unwrap();
    o.call("image", "child_add", &child()).unwrap();
    assert_eq!(code_of(o.call("image", "snap_remove", &3u64)), code::BUSY);
    let (list, more): (Vec<(Bytes, Child)>, bool) =
        out(o.call("image", "children", &Page { after: Bytes::new(), max: 9 }));
    assert_eq!((list.into_iter().map(|(_, c)| c).collect::<Vec<_>>(), more), (vec![child()], false));
    o.call("image", "child_remove", &child()).unwrap();
    o.call("image", "snap_remove", &3u64).unwrap();
}

#[test]
fn notes_and_flags_of_an_image_come_back() {
    let mut o = made();
    for (key, value) in [("b", "2"), ("a", "1"), ("b", "")] {
        o.call("image", "note_set", &Note { key: key.into(), value: value.into() }).unwrap();
    }
    let (list, _): (Vec<(Bytes, Note)>, bool) = out(o.call("image", "notes", &Page { after: Bytes::new(), max: 9 }));
    assert_eq!(list.into_iter().map(|(_, n)| (n.key, n.value)).collect::<Vec<_>>(), [("a".into(), "1".into())]);
    o.call("image", "flags", &Flags { set: 3, clear: 1 }).unwrap();
    assert_eq!(out::<HeldImage>(o.call("image", "get", &0u64)).image.flags, 2);
    let long = Note { key: "k".into(), value: "v".repeat(4097) };
    assert_eq!(code_of(o.call("image", "note_set", &long)), code::LIMIT);
}

#[test]
fn a_head_is_read_in_both_its_forms_and_its_map_is_marked() {
    for image in [image(), striped()] {
        let sealed = crate::format::seal(crate::format::Kind::Image, &image);
        assert_eq!(crate::format::open::<Image>(crate::format::Kind::Image, &sealed), Ok(image.clone()));
        let mut o = Bench::new();
        o.call("image", "create", &image).unwrap();
        assert_eq!(
            out::<HeldImage>(o.call("image", "get", &0u64)).image,
            Image { created_ms: 1000, change: 1, ..image }
        );
    }
    // Stripes that do not divide an object, or are none.
    for (stripe_unit, stripe_count) in
        [(65536, 1), (65536, 0), (0, 4), (3 << 10, 4), (8 << 20, 4), (256, 4), (65536, 1025)]
    {
        let odd = Image { stripe_unit, stripe_count, ..image() };
        assert_eq!(code_of(Bench::new().call("image", "create", &odd)), code::MALFORMED, "{odd:?}");
    }
    let mut o = made();
    let mut marked = |used, good, since| {
        o.call("image", "map_set", &MapSet { used, good, since: SnapId(since) }).unwrap();
        let image = out::<HeldImage>(o.call("image", "get", &0u64)).image;
        (image.features & FEATURE_MAP, image.flags & FLAG_MAP_BAD, image.map_since.0)
    };
    assert_eq!(marked(true, false, 4), (FEATURE_MAP, FLAG_MAP_BAD, 4));
    assert_eq!(marked(true, true, 0), (FEATURE_MAP, 0, 0));
    assert_eq!(marked(false, true, 0), (0, 0, 0));
}

#[test]
fn all_who_spend_what_an_image_may_do_in_a_second_together_do_not_pass_it() {
    let mut o = made();
    let limit = |key: &str, value: &str| Note { key: key.into(), value: value.into() };
    let amounts = |iops: u64, bytes: u64| Spend { amounts: vec![iops, 0, 0, bytes, 0, 0] };
    // Without limits nobody waits, and nothing is counted.
    let free: Spent = out(o.call("image", "spend", &amounts(1 << 40, 1 << 60)));
    assert_eq!(free, Spent { wait_us: 0, rates: vec![0; LIMITS.len()], dealt: vec![0; LIMITS.len()] });
    o.call("image", "note_set", &limit("limit.iops", "100")).unwrap();
    o.call("image", "note_set", &limit("limit.bytes", "1000000")).unwrap();
    // Three who spend ten at a time, each again as soon as it may: what all may use until a moment is what is there for
    // each second until then, and one second's worth that had been saved.
    let began = o.wall_ms;
    let mut users = [(1u64, began * 1000); 3];
    let mut used: Vec<u64> = Vec::new();
    while let Some((session, at_us)) = users.iter_mut().min_by_key(|(_, at_us)| *at_us)
        && *at_us < (began + 10_000) * 1000
    {
        o.session = *session;
        o.wall_ms = at_us.div_ceil(1000);
        let spent: Spent = out(o.call("image", "spend", &amounts(10, 10)));
        *session += 1;
        *at_us = o.wall_ms * 1000 + spent.wait_us;
        used.push(*at_us);
        let until_ms = (*at_us).div_ceil(1000) - began;
        let by_then = 10 * used.iter().filter(|used| **used <= *at_us).count() as u64;
        assert!(by_then <= 100 + until_ms / 10, "{by_then} within {until_ms} ms");
        assert_eq!(spent.dealt[0], 10 * used.len() as u64);
    }
    // And nothing that is there is left over, but for the milliseconds of the clock.
    assert!(used.len() >= 105, "{}", used.len());
    // The tightest limit counts, what was saved is one second's worth at most, and debts do not outlive a clock.
    o.wall_ms += 100_000;
    assert_eq!(out::<Spent>(o.call("image", "spend", &amounts(1, 3_000_000))).wait_us, 2_000_000);
    assert_eq!(out::<Spent>(o.call("image", "spend", &amounts(200, 0))).wait_us, 1_010_000);
    o.wall_ms -= 90_000;
    o.call("image", "note_set", &limit("limit.bytes", "")).unwrap();
    assert_eq!(out::<Spent>(o.call("image", "spend", &amounts(1, 0))).wait_us, 91_020_000);
    o.wall_ms = 5;
    o.call("image", "spend", &amounts(100 * 700, 0)).unwrap();
    let spent: Spent = out(o.call("image", "spend", &amounts(1, 7)));
    assert_eq!((spent.wait_us, &spent.rates[..]), (10_000, &[100, 0, 0, 0, 0, 0][..]));
    assert_eq!(code_of(o.call("image", "spend", &Spend { amounts: vec![1] })), code::MALFORMED);
    assert!(Bench::new().call("image", "spend", &amounts(1, 1)).is_err(), "there is no image");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes of every input, as the first release wrote them. A line is added with a type; none is ever changed.
#[test]
fn inputs_have_the_bytes_they_always_had() {
    let held = Held { number: 7, tag: b("t") };
    let line = NewLine { time_ms: 3, section: b("s"), name: b("n"), data: b("d") };
    let entry = Entry { time_ms: 3, key: b("k"), value: b("v") };
    let lock = Lock { last_ms: 9, renew: Renew::Must, note: b("who"), ..want("t", LockKind::Shared) };
    let page = Page { after: b("m"), max: 2 };
    let now: Vec<(&str, Bytes)> = vec![
        ("lock.lock", encode(&lock)),
        ("lock.unlock", encode(&Unlock { name: b("l"), cookie: b("c") })),
        ("lock.break", encode(&Break { name: b("l"), session: SessionId(4), cookie: b("c") })),
        ("lock.unfence", encode(&Named { name: b("l"), tag: b("t") })),
        ("lock.assert", encode(&Assert { name: b("l"), cookie: b("c"), tag: b("t"), fence: 5 })),
        ("numops.add", encode(&Change { key: b("k"), by: -2 })),
        ("version.set", encode(&held)),
        ("version.inc", encode(&Step { when: vec![Condition { at: At::Least, than: held }], tag: b("t") })),
        ("refcount.put", encode(&Tag { tag: b("t") })),
        ("refcount.set", encode(&Tags { tags: [b("t")].into() })),
        ("queue.init", encode(&Init { max_bytes: 8 })),
        ("queue.put", encode(&Entries { items: vec![b("x")] })),
        ("queue.take", encode(&Take { max: 3 })),
        ("queue.remove", encode(&Upto { number: 6 })),
        ("queue.list", encode(&page)),
        ("log.append", encode(&Append { lines: vec![line] })),
        ("log.trim", encode(&b("0123456789abcdef"))),
        ("timeindex.add", encode(&Set { entries: vec![entry] })),
        ("timeindex.trim", encode(&(1u64, 2u64))),
        ("timeindex.list", encode(&((1u64, 2u64), page.clone()))),
        ("image.create", encode(&image())),
        ("image.resize", encode(&Resize { size: 8, from: 4 })),
        ("image.trimmed", encode(&Trimmed { size: 4 })),
        ("image.snap_add", encode(&NewSnap { id: SnapId(3), name: "s".into(), group: b("g") })),
        ("image.snap_remove", encode(&3u64)),
        ("image.flags", encode(&Flags { set: 1, clear: 2 })),
        ("image.child_add", encode(&child())),
        ("image.note_set", encode(&Note { key: "k".into(), value: "v".into() })),
        ("image.children", encode(&page)),
        ("image.head", crate::format::seal(crate::format::Kind::Image, &image())),
        ("image.snap", crate::format::seal(crate::format::Kind::ImageSnap, &snap())),
        ("image.create.2", encode(&striped())),
        ("image.head.2", crate::format::seal(crate::format::Kind::Image, &striped())),
        ("image.map_set", encode(&MapSet { used: true, good: true, since: SnapId(5) })),
        ("image.spend", encode(&Spend { amounts: vec![1, 2] })),
        ("image.spent", encode(&Spent { wait_us: 1, rates: vec![2], dealt: vec![3] })),
    ];
    let now: Vec<String> = now.into_iter().map(|(name, bytes)| format!("{name} {}", hex(&bytes))).collect();
    let kept: Vec<&str> =
        include_str!("../../../fixtures/pg/class.txt").lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(now, kept);
}
