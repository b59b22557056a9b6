//! The changes that led to the newest map, one by one, from not too long ago.
//!
//! A placement group follows every epoch, so an OSD that was down has to be told each one it missed. That these changes
//! are part of the state, and so of snapshots and backups, lets an OSD follow on also after all monitors have started
//! anew: were they forgotten then, what a power cut leaves on its disk could be of no use any more.
//!
//! Invariants: each change follows on the one before it; all together take no more than [`KEPT`] bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use nacre_maps::Increment;
use nacre_mon_api::v1;

/// Bytes of changes that are kept: some forty thousand epochs in which one thing changed.
pub const KEPT: usize = 8 << 20;
/// What keeping one costs besides its bytes.
const OVERHEAD: usize = 64;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    from: u64,
    to: u64,
    increment: Bytes,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    changes: VecDeque<Change>,
    bytes: usize,
}

impl Past {
    /// Adds a change. One that does not follow on the last begins anew.
    pub fn push(&mut self, increment: &Increment) {
        self.add(Change { from: increment.from.0, to: increment.epoch.0, increment: increment.encode().into() });
    }

    fn add(&mut self, change: Change) {
        if self.changes.back().is_some_and(|last| last.to != change.from) {
            *self = Past::default();
        }
        self.bytes += change.increment.len() + OVERHEAD;
        self.changes.push_back(change);
        while self.bytes > KEPT {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.increment.len() + OVERHEAD;
        }
    }

    /// Adds the change that begins at an epoch, which another has; its bytes are shared.
    pub fn follow(&mut self, other: &Past, from: u64) {
        if let Some((to, increment)) = other.after(from) {
            self.add(Change { from, to, increment });
        }
    }

    /// The epoch the newest leads to.
    pub fn newest(&self) -> Option<u64> {
        self.changes.back().map(|last| last.to)
    }

    /// The change that begins at an epoch, and where it leads.
    pub fn after(&self, epoch: u64) -> Option<(u64, Bytes)> {
        let at = self.changes.partition_point(|change| change.from < epoch);
        let change = self.changes.get(at).filter(|change| change.from == epoch)?;
        Some((change.to, change.increment.clone()))
    }

    /// For a snapshot.
    pub fn encode(&self) -> Vec<v1::Change> {
        let one =
            |change: &Change| v1::Change { from: change.from, to: change.to, increment: change.increment.clone() };
        self.changes.iter().map(one).collect()
    }

    /// From a snapshot whose map is of this epoch. What does not lead there is of no use.
    pub fn decode(changes: Vec<v1::Change>, epoch: u64) -> Past {
        let mut past = Past::default();
        for v1::Change { from, to, increment } in changes.into_iter().filter(|change| change.from < change.to) {
            past.add(Change { from, to, increment });
        }
        if past.newest().is_some_and(|newest| newest != epoch) { Past::default() } else { past }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: u64, len: usize) -> v1::Change {
        v1::Change { from, to: from + 1, increment: vec![from as u8; len].into() }
    }

    #[test]
    fn changes_are_found_by_where_they_begin_and_outlive_a_snapshot() {
        let past = Past::decode((3..9).map(|from| change(from, 100)).collect(), 9);
        assert_eq!(past.after(3), Some((4, vec![3; 100].into())));
        assert_eq!(past.after(8), Some((9, vec![8; 100].into())));
        assert_eq!((past.after(2), past.after(9)), (None, None));
        assert_eq!(Past::decode(past.encode(), 9), past);
    }

    #[test]
    fn only_what_leads_to_the_map_without_a_gap_is_kept() {
        assert_eq!(Past::decode(vec![change(1, 8), change(2, 8)], 7), Past::default());
        let past = Past::decode(vec![change(1, 8), change(5, 8), change(6, 8)], 7);
        assert_eq!((past.after(1), past.after(5).map(|(to, _)| to)), (None, Some(6)));
        assert_eq!(Past::decode(vec![v1::Change { from: 7, to: 7, increment: Bytes::new() }], 7), Past::default());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut past = Past::default();
        for from in 0..20 {
            past.add(Change { from, to: from + 1, increment: vec![0; KEPT / 8].into() });
        }
        assert!(past.bytes <= KEPT && past.changes.len() >= 7);
        assert_eq!((past.after(0), past.newest()), (None, Some(20)));
        assert!(past.after(19).is_some());
    }
}
