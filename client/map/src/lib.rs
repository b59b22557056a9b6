//! A volume as a block device of this machine, in one of two ways.
//!
//! - Over the kernel's NBD driver: [`mod@nbd`] serves one end of a socket, [`driver`] gives the kernel the other, in the
//!   words of [`netlink`]. The device outlives its process: who serves the volume next takes it over, and what uses it
//!   only waits.
//! - Where the kernel has no such driver: the volume is the one file of a small file system ([`disk`]), and a loop device
//!   stands on that file ([`loops`]). When the process ends, the file system answers nothing any more, and what uses the
//!   device gets errors; what was flushed before is durable. [`loops::detach`] and [`disk::clear`] put away what a process
//!   left behind.
//! - [`ways`]: what this kernel offers.
//! - [`users`]: who uses a device, for people who want it back.
//!
//! What it does not do: know images, keep records.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod disk;
pub mod driver;
mod error;
pub mod loops;
pub mod nbd;
pub mod netlink;
pub mod users;
pub mod ways;

pub use error::Error;
