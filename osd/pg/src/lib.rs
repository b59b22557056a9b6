//! The placement-group core: one value, [`PlacementGroup`], with one way in ([`PlacementGroup::step`]) and ordered
//! outputs as data. It replicates, peers, recovers, snapshots and scrubs; it has no clock, thread, lock, file or socket,
//! and its maps are ordered, so that a run repeats from a seed.
//!
//! What it keeps, whatever fails:
//! 1. success is said only after every acting replica has the write on stable storage;
//! 2. operations on one object are linearizable, retries and failovers included;
//! 3. a pg goes active only after someone from every past interval that could have taken writes was heard, the
//!    authoritative log chosen, and the choice made durable on all acting members, of which there are min_size;
//! 4. every message carries its interval; stale ones are refused in one place;
//! 5. a primary answers reads only while its replicas have promised to tell its successor for how long it may.
//!
//! Where to begin: [`io`] is the contract with the shell, `pg.rs` the value and its states, `pg/peering.rs` the way from
//! a new interval to active, `pg/replicate.rs` the way of a write.
#![forbid(unsafe_code)]

pub mod class;
pub mod exec;
pub mod format;
pub mod io;
pub mod log;
pub mod msg;
#[cfg(not(feature = "mutants"))]
mod mutant;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod object;
pub mod op;
mod pg;
pub mod state;
pub mod view;
pub mod wire;

pub use io::{Input, Output, Step};
pub use pg::{Damage, Findings, Lacking, PlacementGroup, Stored, TRANSITIONS};

#[cfg(test)]
mod table_test;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod trio;
