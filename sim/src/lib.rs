//! A whole cluster in one thread from one seed: osds, a map service, clients, a network and disks that fail. The cores
//! are the product's own; everything around them is simulated. An oracle judges what clients saw and what is left.
//!
//! A run has two phases: faults happen while clients work; then everything is healed, and the cluster must become clean
//! and answer all. The same seed gives the same run, event by event.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod client;
pub mod coverage;
pub mod fault;
mod grow;
pub mod history;
pub mod map;
#[cfg(feature = "mutants")]
pub mod mutation;
pub mod node;
pub mod oracle;
pub mod rng;
pub mod rot;
mod run;
pub mod scenario;
mod slots;
mod unsnap;
pub mod world;

pub use run::{Options, Outcome, run};
