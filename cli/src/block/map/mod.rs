//! `nacre block map`, `unmap`, `mapped`: images as block devices of this machine.
//!
//! - `verb`: what a person types. [`serve`]: the process behind a device, one for each.
//! - [`slot`]: what is kept on disk of each mapping, so that it is known after a crash.

mod serve;
mod slot;
mod verb;

pub(super) use verb::{Map, Mapped, Unmap};
