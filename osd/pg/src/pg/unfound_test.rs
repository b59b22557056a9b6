//! A copy that is lost for good: what is unfound is named, and goes by the operator's decision alone.

use std::collections::BTreeSet;

use crate::io::{Input, Order};
use crate::op::{Op, OpError};
use crate::trio::{Trio, oid};

/// Osd 1 is left alone with a log that names a version which only the lost osd 0 held.
fn with_a_loss() -> Trio {
    let mut t = Trio::new();
    t.map(&[0, 1], &[]);
    assert!(t.ask(0, Op::WriteFull { data: "old".into() }).is_some());
    t.map(&[0], &[]);
    assert!(t.ask(0, Op::WriteFull { data: "newer".into() }).is_some());
    t.no_push = true;
    t.map(&[0, 1], &[]);
    assert_eq!(t.cores[1].missing().len(), 1);
    t.no_push = false;
    t.map(&[1, 2], &[0]);
    assert_eq!(t.cores[1].state(), "active");
    t
}

#[test]
fn an_unfound_object_is_named_and_waited_for() {
    let mut t = with_a_loss();
    assert_eq!(t.cores[1].unfound(), vec![oid()]);
    let why = t.cores[1].explain();
    assert!(why.contains("thing") && why.contains("no known copy"), "{why}");
    assert_eq!(t.read(1), None, "answered, though nobody has it");
    assert!(!t.cores[1].is_clean());
}

#[test]
fn a_revert_takes_what_there_is_for_the_object_everywhere() {
    let mut t = with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: true })));
    t.settle();
    assert_eq!(t.read(1), Some(Ok("old".into())));
    assert!(t.cores[1].unfound().is_empty());
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!(t.disks[1], t.disks[2]);
    let stats = t.cores[1].info().stats;
    assert_eq!((stats.objects, stats.bytes), (1, 3), "counted as the lost version was");
    assert_eq!(t.cores[2].info().stats, stats);
}

#[test]
fn what_is_forgotten_is_gone_everywhere_and_can_be_made_anew() {
    let mut t = with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: false })));
    t.settle();
    assert_eq!(t.read(1), Some(Err(OpError::NotFound { at: 0 })));
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!((t.disks[1].len(), t.disks[2].len()), (0, 0));
    assert_eq!(t.cores[1].info().stats, crate::state::Stats::default());
    assert!(t.ask(1, Op::WriteFull { data: "anew".into() }).is_some());
    assert_eq!(t.read(1), Some(Ok("anew".into())));
}

#[test]
fn whoever_comes_back_with_the_lost_version_follows_the_decision() {
    let mut t = with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: true })));
    t.settle();
    t.map(&[1, 0], &[]);
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!(t.disks[0], t.disks[1]);
    let held: BTreeSet<_> = t.disks[0].keys().collect();
    assert_eq!(held.len(), 1);
}
