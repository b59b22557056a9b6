//! Vectors of operations: all or nothing, one after another, and what they tell the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_proto::ids::{SnapId, Version};
use nacre_proto::txn::TxnOp;

use crate::op::{Compare, Op, OpError, OpResult};
use crate::testkit::Bench;

fn text(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

/// One operation alone.
fn one(o: &mut Bench, op: Op) -> Result<OpResult, OpError> {
    o.run(&[op]).map(|mut all| all.remove(0))
}

fn pairs(list: &[(&str, &str)], more: bool) -> Result<OpResult, OpError> {
    Ok(OpResult::Pairs { pairs: list.iter().map(|(k, v)| (text(k), text(v))).collect(), more })
}

fn data(s: &str) -> Result<OpResult, OpError> {
    Ok(OpResult::Data(text(s)))
}

fn range(after: Option<&str>, prefix: &str, max: u32) -> Op {
    Op::OmapRange { after: after.map(text), prefix: text(prefix), max }
}

#[test]
fn the_first_guard_that_fails_stops_all() {
    let mut o = Bench::new();
    o.run(&[Op::WriteFull { data: "some".into() }, Op::SetXattr { name: "k".into(), value: "v".into() }]).unwrap();
    let refused = o.run(&[
        Op::CompareXattr { name: "k".into(), how: Compare::Eq, value: "v".into() },
        Op::Append { data: "more".into() },
        Op::CompareExtent { offset: 4, data: "other".into() },
        Op::AssertAbsent,
    ]);
    assert_eq!(refused, Err(OpError::Guard { at: 2 }));
    assert_eq!(o.head().data, b"some");
    let seen = o.run(&[
        Op::Append { data: "more".into() },
        Op::CompareExtent { offset: 4, data: "more".into() },
        Op::Checksum { offset: 0, len: 8, chunk: 4 },
    ]);
    let sums = vec![crc32fast::hash(b"some"), crc32fast::hash(b"more")];
    assert_eq!(seen, Ok(vec![OpResult::Done, OpResult::Done, OpResult::Sums(sums)]), "a later one sees an earlier one");
}

#[test]
fn a_hint_goes_with_the_writes_after_it() {
    let mut o = Bench::new();
    o.run(&[
        Op::Write { offset: 0, data: "warm".into() },
        Op::Hint { size: 8, cold: true },
        Op::Write { offset: 4, data: "cold".into() },
    ])
    .unwrap();
    let writes = &o.last.as_ref().unwrap().writes;
    let cold: Vec<bool> =
        writes.iter().filter_map(|w| if let TxnOp::Write { hint, .. } = w { Some(hint.cold) } else { None }).collect();
    assert_eq!(cold, [false, true]);
    assert_eq!(o.head().data, b"warmcold");
}

#[test]
fn a_pattern_is_repeated_a_whole_number_of_times() {
    let mut o = Bench::new();
    o.run(&[Op::WriteSame { offset: 2, len: 6, data: "ab".into() }]).unwrap();
    assert_eq!(o.head().data, b"\0\0ababab");
    let refused = o.run(&[Op::WriteSame { offset: 0, len: 5, data: "ab".into() }]);
    assert_eq!(refused, Err(OpError::Invalid { at: 0 }));
}

#[test]
fn of_what_is_not_there_only_its_absence_can_be_learnt() {
    let mut o = Bench::new();
    for op in [
        Op::Stat,
        Op::Read { offset: 0, len: 1 },
        Op::SparseRead { offset: 0, len: 1 },
        Op::Checksum { offset: 0, len: 1, chunk: 1 },
        Op::GetXattr { name: "k".into() },
        Op::ListXattrs,
        range(None, "", 9),
        Op::OmapKeys { keys: vec!["k".into()] },
        Op::OmapHeader,
        Op::ListWatchers,
        Op::AssertExists,
        Op::AssertVersion { version: Version::default() },
        Op::CompareXattr { name: "k".into(), how: Compare::Eq, value: Bytes::new() },
        Op::CompareOmap { key: "k".into(), how: Compare::Eq, value: Bytes::new() },
        Op::Zero { offset: 0, len: 1 },
        Op::Truncate { size: 1 },
        Op::Remove,
        Op::RemoveXattr { name: "k".into() },
        Op::OmapRemove { keys: vec!["k".into()] },
        Op::OmapRemoveRange { from: "a".into(), to: None },
        Op::OmapClear,
    ] {
        assert_eq!(one(&mut o, op.clone()), Err(OpError::NotFound { at: 0 }), "{op:?}");
    }
    assert_eq!(one(&mut o, Op::AssertAbsent), Ok(OpResult::Done));
    assert_eq!(one(&mut o, Op::ListSnaps), Ok(OpResult::Snaps { clones: vec![], head: false }));
    assert!(o.info.is_none(), "a look made it");
}

#[test]
fn an_object_is_made_once_if_that_is_asked_for() {
    let mut o = Bench::new();
    assert_eq!(one(&mut o, Op::Create { exclusive: true }), Ok(OpResult::Done));
    assert_eq!(one(&mut o, Op::Create { exclusive: true }), Err(OpError::Exists { at: 0 }));
    assert_eq!(one(&mut o, Op::Create { exclusive: false }), Ok(OpResult::Done));
    assert_eq!(one(&mut o, Op::AssertAbsent), Err(OpError::Exists { at: 0 }));
    assert_eq!(one(&mut o, Op::AssertExists), Ok(OpResult::Done));
    let again = o.run(&[Op::Remove, Op::AssertAbsent, Op::Create { exclusive: true }, Op::Append { data: "a".into() }]);
    assert!(again.is_ok(), "{again:?}");
    assert_eq!(o.head().data, b"a");
}

#[test]
fn bytes_are_written_cut_and_read_as_each_operation_says() {
    let mut o = Bench::new();
    let read = |o: &mut Bench, offset, len| one(o, Op::Read { offset, len });
    one(&mut o, Op::Write { offset: 3, data: "abc".into() }).unwrap();
    assert_eq!(read(&mut o, 0, 99), data("\0\0\0abc"), "a gap reads as zeros");
    one(&mut o, Op::WriteFull { data: "hello world".into() }).unwrap();
    one(&mut o, Op::Append { data: "!".into() }).unwrap();
    assert_eq!(read(&mut o, 6, 3), data("wor"));
    assert_eq!(read(&mut o, 9, u64::MAX), data("ld!"));
    assert_eq!(read(&mut o, 12, 5), data(""));
    one(&mut o, Op::Zero { offset: 1, len: 3 }).unwrap();
    assert_eq!(read(&mut o, 0, 5), data("h\0\0\0o"));
    one(&mut o, Op::Zero { offset: 10, len: 50 }).unwrap();
    assert_eq!(read(&mut o, 9, 9), data("l\0\0"), "zeros do not make it longer");
    one(&mut o, Op::Truncate { size: 5 }).unwrap();
    one(&mut o, Op::Truncate { size: 7 }).unwrap();
    assert_eq!(read(&mut o, 0, 99), data("h\0\0\0o\0\0"), "what was cut off does not come back");
    let version = o.info.as_ref().unwrap().version;
    assert_eq!(one(&mut o, Op::Stat), Ok(OpResult::Stat { size: 7, version }));
    one(&mut o, Op::WriteFull { data: "x".into() }).unwrap();
    assert_eq!(read(&mut o, 0, 99), data("x"));
    // What is found in one read: runs that are not zeros, in pieces of 512.
    let mut long = vec![0; 2048];
    (long[600], long[1024], long[1536]) = (1, 2, 3);
    one(&mut o, Op::WriteFull { data: long.clone().into() }).unwrap();
    let runs = vec![(512, Bytes::copy_from_slice(&long[512..2048]))];
    assert_eq!(one(&mut o, Op::SparseRead { offset: 0, len: 4096 }), Ok(OpResult::Extents(runs)));
    assert_eq!(one(&mut o, Op::SparseRead { offset: 0, len: 512 }), Ok(OpResult::Extents(vec![])));
}

#[test]
fn sums_are_of_each_chunk_and_of_the_rest() {
    let mut o = Bench::new();
    one(&mut o, Op::WriteFull { data: "0123456789".into() }).unwrap();
    let sums = |parts: &[&[u8]]| Ok(OpResult::Sums(parts.iter().map(|p| crc32fast::hash(p)).collect()));
    assert_eq!(one(&mut o, Op::Checksum { offset: 1, len: 100, chunk: 4 }), sums(&[b"1234", b"5678", b"9"]));
    assert_eq!(one(&mut o, Op::Checksum { offset: 10, len: 1, chunk: 4 }), sums(&[]));
    assert_eq!(one(&mut o, Op::Checksum { offset: 0, len: 1, chunk: 0 }), Err(OpError::Invalid { at: 0 }));
}

#[test]
fn attributes_are_set_listed_and_removed_within_bounds() {
    let mut o = Bench::new();
    let set = |name: &str, len: usize| Op::SetXattr { name: text(name), value: vec![b'v'; len].into() };
    one(&mut o, set("b", 1)).unwrap();
    one(&mut o, set("a", 2)).unwrap();
    assert_eq!(one(&mut o, Op::ListXattrs), pairs(&[("a", "vv"), ("b", "v")], false));
    assert_eq!(one(&mut o, Op::GetXattr { name: "a".into() }), data("vv"));
    one(&mut o, Op::RemoveXattr { name: "a".into() }).unwrap();
    assert_eq!(one(&mut o, Op::GetXattr { name: "a".into() }), Err(OpError::NoAttr { at: 0 }));
    let long = "n".repeat(256);
    for bad in [set("", 1), set(&long, 1), set("a", (1 << 16) + 1)] {
        assert_eq!(one(&mut o, bad), Err(OpError::Invalid { at: 0 }));
    }
    one(&mut o, set(&long[1..], 1 << 16)).unwrap();
}

#[test]
fn an_omap_is_read_by_range_by_key_and_page_by_page() {
    let mut o = Bench::new();
    let all = [("a1", "1"), ("a2", "2"), ("b1", "3"), ("b2", "4"), ("c", "5")];
    one(&mut o, Op::OmapSet { entries: all.iter().map(|(k, v)| (text(k), text(v))).collect() }).unwrap();
    assert_eq!(one(&mut o, range(None, "", 2)), pairs(&all[..2], true));
    assert_eq!(one(&mut o, range(Some("a2"), "", 2)), pairs(&all[2..4], true));
    assert_eq!(one(&mut o, range(Some("b2"), "", 2)), pairs(&all[4..], false));
    assert_eq!(one(&mut o, range(None, "b", 9)), pairs(&all[2..4], false));
    assert_eq!(one(&mut o, range(Some("b1"), "b", 9)), pairs(&all[3..4], false));
    assert_eq!(one(&mut o, range(Some("b2"), "a", 9)), pairs(&[], false));
    let keys = ["c", "none", "a1"].map(text).to_vec();
    assert_eq!(one(&mut o, Op::OmapKeys { keys }), pairs(&[("c", "5"), ("a1", "1")], false));
    one(&mut o, Op::OmapRemove { keys: vec!["c".into(), "none".into()] }).unwrap();
    one(&mut o, Op::OmapRemoveRange { from: "a2".into(), to: Some("b2".into()) }).unwrap();
    assert_eq!(one(&mut o, range(None, "", 9)), pairs(&[all[0], all[3]], false));
    one(&mut o, Op::OmapRemoveRange { from: "b".into(), to: None }).unwrap();
    one(&mut o, Op::OmapSetHeader { header: "head".into() }).unwrap();
    assert_eq!(one(&mut o, Op::OmapHeader), data("head"));
    assert_eq!(one(&mut o, range(None, "", 9)), pairs(&all[..1], false));
    one(&mut o, Op::OmapClear).unwrap();
    assert_eq!(one(&mut o, Op::OmapHeader), data(""));
    assert_eq!(one(&mut o, range(None, "", 9)), pairs(&[], false));
}

#[test]
fn a_guard_holds_or_stops_the_vector() {
    let mut o = Bench::new();
    let fill = [
        Op::WriteFull { data: "bytes".into() },
        Op::SetXattr { name: "x".into(), value: "m".into() },
        Op::OmapSet { entries: vec![("k".into(), "m".into())] },
    ];
    o.run(&fill).unwrap();
    let now = o.info.as_ref().unwrap().version;
    let before = Version { counter: now.counter - 1, ..now };
    let mut guards = vec![
        (Op::AssertVersion { version: now }, true),
        (Op::AssertVersion { version: before }, false),
        (Op::CompareExtent { offset: 1, data: "yte".into() }, true),
        (Op::CompareExtent { offset: 1, data: "yto".into() }, false),
        // Past the end there are zeros.
        (Op::CompareExtent { offset: 3, data: "es\0\0".into() }, true),
        (Op::CompareExtent { offset: 3, data: "es\0x".into() }, false),
        (Op::CompareExtent { offset: 99, data: "\0".into() }, true),
        (Op::CompareXattr { name: "none".into(), how: Compare::Eq, value: Bytes::new() }, true),
        (Op::CompareOmap { key: "none".into(), how: Compare::Lt, value: "a".into() }, true),
    ];
    // The stored value is "m": greater than a, equal to m, less than z.
    for (how, holds) in [
        (Compare::Eq, [false, true, false]),
        (Compare::Ne, [true, false, true]),
        (Compare::Gt, [true, false, false]),
        (Compare::Ge, [true, true, false]),
        (Compare::Lt, [false, false, true]),
        (Compare::Le, [false, true, true]),
    ] {
        for (value, holds) in ["a", "m", "z"].into_iter().zip(holds) {
            guards.push((Op::CompareXattr { name: "x".into(), how, value: text(value) }, holds));
            guards.push((Op::CompareOmap { key: "k".into(), how, value: text(value) }, holds));
        }
    }
    for (guard, holds) in guards {
        let seen = o.run(&[Op::Stat, guard.clone()]).map(|_| ());
        assert_eq!(seen, if holds { Ok(()) } else { Err(OpError::Guard { at: 1 }) }, "{guard:?}");
    }
}

#[test]
fn what_would_be_too_large_is_refused() {
    let mut o = Bench::new();
    let most: u64 = 1 << 20;
    one(&mut o, Op::Write { offset: most - 1, data: "x".into() }).unwrap();
    for (op, why) in [
        (Op::Append { data: "x".into() }, OpError::TooBig { at: 0 }),
        (Op::Write { offset: most, data: "x".into() }, OpError::TooBig { at: 0 }),
        (Op::Write { offset: u64::MAX, data: "xx".into() }, OpError::Invalid { at: 0 }),
        (Op::WriteFull { data: vec![0; most as usize + 1].into() }, OpError::TooBig { at: 0 }),
        (Op::WriteSame { offset: 1, len: most, data: "x".into() }, OpError::TooBig { at: 0 }),
        (Op::WriteSame { offset: 0, len: u64::MAX, data: "x".into() }, OpError::Invalid { at: 0 }),
        (Op::Truncate { size: most + 1 }, OpError::TooBig { at: 0 }),
    ] {
        assert_eq!(one(&mut o, op.clone()), Err(why), "{op:?}");
    }
    assert_eq!(o.head().data.len() as u64, most);
}

#[test]
fn a_snapshot_is_read_and_never_written() {
    let mut o = Bench::new();
    one(&mut o, Op::WriteFull { data: "now".into() }).unwrap();
    o.states.insert(SnapId(3), o.head().clone());
    assert_eq!(o.run_at(SnapId(3), &[Op::Read { offset: 0, len: 9 }]).unwrap(), [data("now").unwrap()]);
    assert_eq!(o.run_at(SnapId(3), &[Op::Append { data: "x".into() }]), Err(OpError::Invalid { at: 0 }));
}

/// An object as one would write it down, to compare the vectors' answers and effects with.
#[derive(Clone, Default, PartialEq, Debug)]
struct Plain {
    there: bool,
    data: Vec<u8>,
    xattrs: BTreeMap<Bytes, Bytes>,
    omap: BTreeMap<Bytes, Bytes>,
    header: Bytes,
}

impl Plain {
    fn slice(&self, offset: u64, len: u64) -> Bytes {
        let end = (offset.saturating_add(len) as usize).min(self.data.len());
        Bytes::copy_from_slice(&self.data[(offset as usize).min(end)..end])
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        self.there = true;
        if !data.is_empty() {
            self.data.resize(self.data.len().max(offset + data.len()), 0);
            self.data[offset..offset + data.len()].copy_from_slice(data);
        }
    }

    fn one(&mut self, op: &Op) -> Result<OpResult, OpError> {
        let makes = matches!(
            op,
            Op::Create { .. }
                | Op::Write { .. }
                | Op::WriteFull { .. }
                | Op::Append { .. }
                | Op::WriteSame { .. }
                | Op::SetXattr { .. }
                | Op::OmapSet { .. }
                | Op::OmapSetHeader { .. }
                | Op::CompareExtent { .. }
        );
        if !makes && !self.there {
            return Err(OpError::NotFound { at: 0 });
        }
        let pairs = |list: Vec<(&Bytes, &Bytes)>| OpResult::Pairs {
            pairs: list.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            more: false,
        };
        match op {
            Op::Read { offset, len } => return Ok(OpResult::Data(self.slice(*offset, *len))),
            Op::GetXattr { name } => {
                return self.xattrs.get(name).cloned().map(OpResult::Data).ok_or(OpError::NoAttr { at: 0 });
            }
            Op::ListXattrs => return Ok(pairs(self.xattrs.iter().collect())),
            Op::OmapHeader => return Ok(OpResult::Data(self.header.clone())),
            Op::OmapKeys { keys } => {
                return Ok(pairs(keys.iter().filter_map(|k| self.omap.get_key_value(k)).collect()));
            }
            Op::OmapRange { after, prefix, .. } => {
                let inside = |k: &Bytes| k.starts_with(prefix) && after.as_ref().is_none_or(|a| k > a);
                return Ok(pairs(self.omap.iter().filter(|(k, _)| inside(k)).collect()));
            }
            Op::CompareExtent { offset, data } => {
                let mut seen = self.slice(*offset, data.len() as u64).to_vec();
                seen.resize(data.len(), 0);
                return if seen == *data { Ok(OpResult::Done) } else { Err(OpError::Guard { at: 0 }) };
            }
            Op::Create { exclusive } => {
                if *exclusive && self.there {
                    return Err(OpError::Exists { at: 0 });
                }
                self.there = true;
            }
            Op::Write { offset, data } => self.put(*offset as usize, data),
            Op::WriteFull { data } => {
                self.data.clear();
                self.put(0, data);
            }
            Op::Append { data } => self.put(self.data.len(), data),
            Op::WriteSame { offset, len, data } => {
                self.put(*offset as usize, &data.repeat(*len as usize / data.len()));
            }
            Op::Zero { offset, len } => {
                let end = ((offset + len) as usize).min(self.data.len());
                self.data[(*offset as usize).min(end)..end].fill(0);
            }
            Op::Truncate { size } => self.data.resize(*size as usize, 0),
            Op::Remove => *self = Plain::default(),
            Op::SetXattr { name, value } => {
                self.there = true;
                self.xattrs.insert(name.clone(), value.clone());
            }
            Op::RemoveXattr { name } => drop(self.xattrs.remove(name)),
            Op::OmapSet { entries } => {
                self.there = true;
                self.omap.extend(entries.iter().cloned());
            }
            Op::OmapRemove { keys } => keys.iter().for_each(|k| drop(self.omap.remove(k))),
            Op::OmapRemoveRange { from, to } => {
                self.omap.retain(|k, _| k < from || to.as_ref().is_some_and(|t| k >= t));
            }
            Op::OmapClear => {
                self.omap.clear();
                self.header = Bytes::new();
            }
            Op::OmapSetHeader { header } => {
                self.there = true;
                self.header = header.clone();
            }
            other => panic!("not drawn: {other:?}"),
        }
        Ok(OpResult::Done)
    }
}

/// Whatever operations stand together, the vector does and answers what they would one by one; or nothing at all.
#[test]
fn a_vector_is_its_operations_one_after_another_or_nothing() {
    let mut seed = 11_u64;
    let mut below = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let (mut o, mut plain) = (Bench::new(), Plain::default());
    let (mut done, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut vector = Vec::new();
        for _ in 0..=below(5) {
            let (offset, len) = (below(80), below(40));
            let bytes = Bytes::from(vec![b'a' + below(26) as u8; below(30) as usize]);
            let key = |n: u64| text(["a", "aa", "ab", "b", "ba", "c"][n as usize]);
            let k = key(below(6));
            vector.push(match below(23) {
                0 | 1 => Op::Read { offset, len },
                2 => Op::GetXattr { name: k },
                3 => Op::ListXattrs,
                4 => Op::OmapHeader,
                5 => Op::OmapKeys { keys: vec![k, key(below(6))] },
                6 => Op::OmapRange {
                    after: (below(2) == 0).then_some(k),
                    prefix: text(["", "a", "b"][below(3) as usize]),
                    max: 50,
                },
                7 => Op::CompareExtent { offset, data: Bytes::from(vec![0; below(3) as usize]) },
                8 => Op::Create { exclusive: below(4) == 0 },
                9 | 10 => Op::Write { offset, data: bytes },
                11 => Op::WriteFull { data: bytes },
                12 => Op::Append { data: bytes },
                13 => Op::WriteSame { offset, len: 3 * below(9), data: "xyz".into() },
                14 => Op::Zero { offset, len },
                15 => Op::Truncate { size: offset },
                16 if below(3) == 0 => Op::Remove,
                16 | 17 => Op::SetXattr { name: k, value: bytes },
                18 => Op::RemoveXattr { name: k },
                19 => Op::OmapSet { entries: vec![(k, bytes.clone()), (key(below(6)), bytes)] },
                20 => Op::OmapRemove { keys: vec![k] },
                21 if below(3) == 0 => Op::OmapClear,
                21 => Op::OmapRemoveRange { from: k, to: (below(2) == 0).then(|| key(below(6))) },
                _ => Op::OmapSetHeader { header: bytes },
            });
        }
        let mut after = plain.clone();
        let mut answers = Vec::new();
        let mut stopped = None;
        for (at, op) in (0..).zip(&vector) {
            match after.one(op) {
                Ok(r) => answers.push(r),
                Err(e) => {
                    stopped = Some(e.at(at));
                    break;
                }
            }
        }
        let expected = match stopped {
            Some(e) => Err(e),
            None => {
                plain = after;
                Ok(answers)
            }
        };
        *(if expected.is_ok() { &mut done } else { &mut refused }) += 1;
        assert_eq!(o.run(&vector), expected, "round {round}: {vector:?}");
        let none = crate::testkit::Stored::default();
        let head = o.states.get(&SnapId::HEAD).unwrap_or(&none);
        assert_eq!(o.info.is_some(), plain.there, "round {round}");
        let user = |k: &Bytes| k.first() == Some(&crate::object::USER);
        let xattrs = head.xattrs.iter().filter(|(k, _)| user(k)).map(|(k, v)| (k.slice(1..), v.clone())).collect();
        let there = plain.there;
        let stored =
            Plain { there, data: head.data.clone(), xattrs, omap: head.omap.clone(), header: head.header.clone() };
        assert_eq!(stored, plain, "round {round}: {vector:?}");
    }
    assert!(done > 8_000 && refused > 3_000, "{done} done, {refused} refused");
}
