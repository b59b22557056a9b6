//! The monitors: one versioned cluster map kept by consensus, and the service around it.
//!
//! - [`raft`]: the types openraft is run with, and their records on wire and disk.
//! - [`store`]: log, ballot and snapshots on RocksDB; recognises what a disk has lost.
//! - [`backup`]: the state in a file, and a quorum out of it.
//! - [`daemon`]: the process around it all.
//! - [`identity`]: who belongs to the cluster; the authority.
//! - [`keys`]: the keys of one monitor: its certificate, the seal, what it trusts.
//! - [`leader`]: what the leading monitor does by itself.
//! - [`metrics`]: what it counts.
//! - [`node`]: a running monitor.
//! - [`service`]: what it serves over gRPC, and to whom.
//! - [`state`]: what the log decides: the value every monitor derives from the same entries.
//!
//! openraft is 0.10 (an alpha, pinned exactly) rather than 0.9: only 0.10 has pre-vote, leadership transfer and an
//! abstract runtime, so that this very storage and state machine also run under its deterministic simulation.

#![forbid(unsafe_code)]

pub mod backup;
pub mod daemon;
pub mod identity;
pub mod keys;
pub mod leader;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod service;
pub mod state;
pub mod store;
