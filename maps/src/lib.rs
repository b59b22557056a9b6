//! The cluster map: what it is, how it changes, what it means for a placement group, and the rules by which monitors
//! change it. Pure functions of their arguments: no socket, file, thread or clock.
//!
//! - [`map`]: the map itself.
//! - [`increment`]: from one epoch to another and back.
//! - [`placement`]: from a pg to its OSDs, and the intervals of its life.
//! - [`rules`]: what commands make of a map.
//! - [`health`]: what is wrong with it, why, and what to do.
//! - [`plan`]: what monitors propose by themselves.
//! - [`settings`]: everything tunable.
//! - [`codec`]: the byte form.

#![forbid(unsafe_code)]

pub mod codec;
pub mod health;
pub mod increment;
pub mod map;
pub mod placement;
pub mod plan;
pub mod rules;
#[cfg(test)]
mod sample;
pub mod settings;

pub use increment::{ApplyError, Draft, Increment};
pub use map::ClusterMap;
