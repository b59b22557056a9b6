//! Vectors of operations: all or nothing, one after another, and what they tell the store.

use nacre_proto::txn::TxnOp;

use crate::op::{Compare, Op, OpError, OpResult};
use crate::testkit::Bench;

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
