//! A volume as a block device of this machine, where the kernel has no driver that speaks to a process: the volume is
//! the one file of a small file system ([`disk`]), and a loop device stands on that file ([`loops`]).
//!
//! - [`ways`]: what this kernel offers.
//! - [`users`]: who uses a device, for people who want it back.
//!
//! What it does not do: know images, keep records, survive its process. When the process ends, the file system answers
//! nothing any more, and what uses the device gets errors; what was flushed before is durable. [`loops::detach`] and
//! [`disk::clear`] put away what a process left behind.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod disk;
mod error;
pub mod loops;
pub mod users;
pub mod ways;

pub use error::Error;
