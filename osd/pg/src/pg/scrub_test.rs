//! The verdict over an object's copies: what is provable, and what is only listed.

use nacre_proto::ids::{Epoch, PoolId};

use super::*;
use crate::format::{Kind, seal};

fn v(counter: u64) -> Version {
    Version { epoch: Epoch(1), counter }
}

fn line(version: u64, size: u64) -> ScrubLine {
    let oid = ObjectId {
        pool: PoolId(1),
        hash: 1,
        namespace: Bytes::new(),
        name: Bytes::from_static(b"o"),
        snap: SnapId::HEAD,
    };
    let info = ObjectInfo { version: v(version), size, digest: Some(7), ..ObjectInfo::default() };
    let info = Some(seal(Kind::Object, &info));
    ScrubLine { oid, info, size, xattrs: 1, data: Some(7), omap: Some(2), damaged: false }
}

fn verdict(copies: &[Option<ScrubLine>], says: Option<Option<u64>>) -> (Vec<(u32, Damage)>, Option<u64>) {
    let copies: Vec<_> = copies.iter().enumerate().map(|(i, l)| (OsdId(i as u32), l.as_ref())).collect();
    let out = judge(&copies, says.map(|s| s.map(v)));
    (out.wrong.into_iter().map(|(o, d)| (o.0, d)).collect(), out.good.map(|v| v.counter))
}

#[test]
fn equal_copies_are_fine() {
    assert_eq!(verdict(&[Some(line(3, 5)), Some(line(3, 5))], Some(Some(3))), (vec![], Some(3)));
    assert_eq!(verdict(&[Some(line(3, 5)), Some(line(3, 5))], None), (vec![], Some(3)));
}

#[test]
fn what_is_provably_bad_is_repaired_from_the_good() {
    let good = || Some(line(3, 5));
    let unreadable = ScrubLine { damaged: true, ..line(3, 5) };
    let short = ScrubLine { size: 4, ..line(3, 5) };
    let flipped = ScrubLine { data: Some(8), ..line(3, 5) };
    let garbled = ScrubLine { info: Some(Bytes::from_static(b"nonsense")), ..line(3, 5) };
    let none = ScrubLine { info: None, ..line(3, 5) };
    for (bad, damage) in [
        (unreadable, Damage::Unreadable),
        (short, Damage::Size),
        (flipped, Damage::Digest),
        (garbled, Damage::Record),
        (none, Damage::Record),
    ] {
        for says in [None, Some(Some(3))] {
            assert_eq!(verdict(&[good(), Some(bad.clone())], says), (vec![(1, damage)], Some(3)), "{damage:?}");
        }
    }
    assert_eq!(verdict(&[good(), Some(line(2, 5))], Some(Some(3))), (vec![(1, Damage::Version)], Some(3)));
    assert_eq!(verdict(&[good(), None], Some(Some(3))), (vec![(1, Damage::Absent)], Some(3)));
}

#[test]
fn what_is_not_provable_is_only_listed() {
    let other = ScrubLine { omap: Some(9), ..line(3, 5) };
    let (wrong, good) = verdict(&[Some(line(3, 5)), Some(other)], Some(Some(3)));
    assert_eq!((wrong.len(), good), (2, None));
    // Two versions, and no word of the log.
    assert_eq!(verdict(&[Some(line(3, 5)), Some(line(2, 5))], None).1, None);
    // Lost here, or left over there?
    assert_eq!(verdict(&[Some(line(3, 5)), None], None), (vec![(1, Damage::Absent)], None));
    assert_eq!(verdict(&[Some(line(3, 5)), None], Some(None)), (vec![(0, Damage::Extra)], None));
    // All are bad.
    let bad = ScrubLine { damaged: true, ..line(3, 5) };
    assert_eq!(verdict(&[Some(bad.clone()), Some(bad)], Some(Some(3))).1, None);
}

#[test]
fn a_record_that_names_a_clone_wants_it_there() {
    let mut head = line(3, 5);
    let mut info = record(&head).unwrap();
    let clone = crate::object::CloneInfo { id: SnapId(2), snaps: vec![SnapId(2)], size: 4, overlap: vec![] };
    info.snaps.clones.push(clone);
    head.info = Some(seal(Kind::Object, &info));
    let mut lines = BTreeMap::from([(head.oid.clone(), head.clone())]);
    assert_eq!(clones_wrong(&lines), [(head.oid.clone(), Damage::Clone)]);
    let oid = ObjectId { snap: SnapId(2), ..head.oid.clone() };
    lines.insert(oid.clone(), ScrubLine { oid: oid.clone(), ..line(2, 4) });
    assert!(clones_wrong(&lines).is_empty());
    lines.insert(oid.clone(), ScrubLine { oid, ..line(2, 3) });
    assert_eq!(clones_wrong(&lines).len(), 1);
}

#[test]
fn a_deep_window_ends_before_it_is_too_large() {
    let object = |n: u32, snap: SnapId| {
        let name = Bytes::from(vec![b'a' + n as u8]);
        ObjectId { pool: PoolId(1), hash: 0, namespace: Bytes::new(), name, snap }
    };
    let raw = |size: u64| seal(Kind::Object, &ObjectInfo { size, ..ObjectInfo::default() });
    let clone = SnapId(4);
    let list = [
        (object(0, clone), raw(60)),
        (object(0, SnapId::HEAD), raw(60)),
        (object(1, SnapId::HEAD), raw(30)),
        (object(2, SnapId::HEAD), raw(30)),
    ];
    let head = |n: u32| Cursor::At(object(n, SnapId::HEAD));
    assert_eq!(window_end(&list, true, 100), head(0), "an object is compared with its clones, however large");
    assert_eq!(window_end(&list, true, 150), head(1));
    assert_eq!(window_end(&list, true, 180), head(2));
    assert_eq!(window_end(&list, false, 180), Cursor::Max);
    assert_eq!(window_end(&list, false, 150), head(1));
    assert_eq!(window_end(&[], false, 0), Cursor::Max);
}
