//! The cluster log: what happened to the cluster (channel `cluster`) and who asked for what (channel `audit`). Part of
//! the replicated state, bounded by count.

use std::collections::VecDeque;

use nacre_mon_api::v1;

/// Lines kept.
pub const KEPT: usize = 2000;

/// What happened to the cluster.
pub const CLUSTER: &str = "cluster";
/// Who asked for what, and what became of it.
pub const AUDIT: &str = "audit";

/// The lines, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    lines: VecDeque<v1::Event>,
    next: u64,
}

impl Events {
    /// Adds a line; its number is set here.
    pub fn push(&mut self, mut line: v1::Event) {
        self.next += 1;
        line.number = self.next;
        self.lines.push_back(line);
        while self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// Lines after a number, oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &v1::Event> {
        let start = self.lines.partition_point(|line| line.number <= number);
        self.lines.iter().skip(start)
    }

    /// The number of the newest line.
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// For a snapshot.
    pub fn encode(&self) -> (Vec<v1::Event>, u64) {
        (self.lines.iter().cloned().collect(), self.next)
    }

    /// From a snapshot.
    pub fn decode(lines: Vec<v1::Event>, next: u64) -> Events {
        Events { lines: lines.into(), next }
    }
}
