//! What is most at risk asks for its slot with the highest priority.

use crate::io::SlotKind;
use crate::op::Op;
use crate::trio::Trio;

/// The priorities of what is asked for when these serve of a pool of so many copies, after the osds `had` alone took a write
/// that the others lack.
fn asked(
    size: u32,
    min_size: u32,
    first: &[u32],
    had: &[u32],
    spare: Option<u32>,
    then: &[u32],
) -> Vec<(SlotKind, u8)> {
    let mut t = Trio::new();
    t.view.pool.size = size;
    t.map(first, &[]);
    t.ask(first[0] as usize, Op::WriteFull { data: "all".into() });
    t.map(had, &[]);
    t.ask(had[0] as usize, Op::WriteFull { data: "some".into() });
    t.asked.clear();
    t.spare = spare;
    t.view.pool.min_size = min_size;
    t.map(then, &[]);
    t.asked.into_iter().map(|(_, kind, priority)| (kind, priority)).collect()
}

#[test]
fn what_is_most_at_risk_asks_most_urgently() {
    use SlotKind::{Local, Remote};
    // Of three copies one is whole, then two: each member is asked as urgently as the pg as a whole is at risk.
    let two_lack = asked(3, 1, &[0, 1, 2], &[0], None, &[0, 1, 2]);
    assert_eq!(two_lack, [(Local, 160), (Remote, 160), (Remote, 160)]);
    let one_lacks = asked(3, 1, &[0, 1, 2], &[0, 1], None, &[0, 1, 2]);
    assert_eq!(one_lacks, [(Local, 150), (Remote, 150)]);
    // Fewer than have to be there, and this one lacks something: nobody can work until it is had.
    let below = asked(2, 2, &[0, 1], &[1], Some(1), &[0]);
    assert_eq!(below, [(Local, 250)]);
}
