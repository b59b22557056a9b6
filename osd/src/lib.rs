//! The OSD daemon: one process that keeps the placement groups the cluster map gives it.
//!
//! - [`sight`]: the cluster map as groups see it, and the history of maps they have to follow.
//! - [`shard`]: the task that owns groups and steps them. [`shards`]: which has which.
//! - [`reads`]: what groups read, as calls on the store.
//! - [`courier`], [`service`]: what goes out to other OSDs, what comes in from anybody.
//! - [`load`]: what clients make it do, in counts.
//! - [`maplog`]: the maps on disk. [`daemon`]: the process. [`pulse`]: its sign of life. `gauges`: what it shows of its
//!   store.
//!
//! What decides stands elsewhere: groups in `nacre-pg`, bytes on disk in `nacre-store`, the map in `nacre-maps`, frames
//! in `nacre-net`. This crate only carries things between them.

#![forbid(unsafe_code)]

mod beacon;
pub mod courier;
pub mod daemon;
mod gauges;
pub mod load;
pub mod maplog;
pub mod pulse;
pub mod reads;
pub mod service;
pub mod shard;
pub mod shards;
pub mod sight;
mod slots;
mod tuning;
