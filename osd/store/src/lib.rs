//! The local object store: what an OSD keeps its data in.
//!
//! [`ObjectStore`] is the seam a placement group sees; [`MemoryStore`] fills it on plain maps, with crashes on demand,
//! for simulation. It knows nothing of pgs' logs, peers or clients: transactions are plain types of `proto`.

mod api;
#[cfg(feature = "disk")]
pub mod bench;
#[cfg(feature = "disk")]
mod disk;
mod error;
pub mod limits;
mod memory;
pub mod ranges;
pub mod transfer;

pub use api::{BLOCK, Completion, DataExtent, FullRatios, Fullness, MAX_OBJECT, ObjectStat, ObjectStore, Seq, Usage};
#[cfg(feature = "disk")]
pub use disk::check;
#[cfg(any(test, feature = "fuzz"))]
pub use disk::fuzz;
#[cfg(feature = "disk")]
pub use disk::{Counters, DiskStore, FormatOptions, Identity, StoreConfig, StoreInfo};
pub use error::{StoreError, name};
pub use memory::MemoryStore;

#[cfg(test)]
#[cfg(feature = "disk")]
#[path = "suite_test.rs"]
mod suite;
#[cfg(test)]
#[cfg(feature = "disk")]
mod testkit;
