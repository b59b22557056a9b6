//! The cluster map: what it is, how it changes, what it means for a placement group, and the rules by which monitors
//! change it. Pure functions of their arguments: no socket, file, thread or clock.
//!
//! - [`map`]: the map itself.
//! - [`increment`]: from one epoch to another and back.
//! - [`placement`]: from a pg to its OSDs, and the intervals of its life.
//! - [`codec`]: the byte form.

#![forbid(unsafe_code)]

pub mod codec;
pub mod increment;
pub mod map;
pub mod placement;
#[cfg(test)]
mod sample;

pub use increment::{ApplyError, Draft, Increment};
pub use map::ClusterMap;
