//! Block images: disks made of objects, that outlive their machines.
//!
//! An image is a header object, data objects of one size, and an entry in the directory of its pool and namespace. What
//! the header says changes only through the class `image` at the OSD, so that two who change it cannot undo each other.
//! Everything here stands on what [`nacre_client`] offers anyone.
//!
//! - [`directory`]: names of images, and the trash.
//! - [`mod@create`]: images made, cloned, resized, removed.
//! - [`image`]: an open image: read, write, zero, flush.
//! - `extents`: which of its bytes are stored.
//! - `copy`: deep copies, and holes made where zeros are stored.
//! - [`lost`]: headers that a crash left without a name.
//! - `header`, `layout`: the header's methods; which object holds which bytes.
//! - [`object_map`]: which objects may exist, and when each last changed.
//! - `object`: what reading and writing one object means when a parent shows through.
//! - `cache`: writes answered before they are durable, where that is wanted. `ahead`: what will be read next.
//! - [`owner`]: one writer at a time: taken, handed over, taken away.
//! - [`snapshot`]: snapshots, rollback, flatten. [`diff`]: what changed between two of them.
//! - [`group`]: snapshots of several images at one moment.
//! - [`limit`], [`meter`]: what a user of an image may do in a second, and what it did.
//! - [`stream`]: images as streams of bytes. [`qcow2`]: as files of qemu.
//! - [`export`]: images as NBD volumes.
//!
//! Promises:
//! 1. A write that was answered is durable on every replica; with write-back, it is after the next flush.
//! 2. Who opened an image for writing is the only one who writes, until it lets go or its session is fenced; after a
//!    fence nothing of it lands any more.
//! 3. What was discarded, cut off or never written reads as zeros, also after a crash in the middle of any operation.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ahead;
mod cache;
mod copy;
pub mod create;
pub mod diff;
pub mod directory;
mod error;
pub mod export;
mod extents;
pub mod group;
mod header;
pub mod image;
mod layout;
pub mod limit;
pub mod lost;
pub mod meter;
mod object;
pub mod object_map;
pub mod owner;
pub mod qcow2;
pub mod snapshot;
pub mod stream;

pub use error::Error;
pub use image::{Image, Use, WeakImage};
pub use nacre_client::class::image::{Child, Held, Parent, Snap};
