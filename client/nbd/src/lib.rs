//! Serves volumes over the NBD protocol, so that qemu, libnbd, fio and kernels use them as disks with what they ship.
//!
//! Spoken: fixed newstyle negotiation, TLS (`STARTTLS`), `INFO`/`GO` with block sizes, structured replies, extended
//! headers (64-bit lengths), `base:allocation`, flush, FUA, trim, write zeroes, cache, several connections at once.
//! Not spoken: oldstyle negotiation, and the draft resize command, which no stock client sends. The protocol has no message
//! by which a server could tell a connected client that a disk has another size.
//!
//! This crate knows nothing of images or clusters: whoever has something like a disk implements [`Volume`] and lists
//! it in a [`Catalog`].
//!
//! - [`volume`]: what a disk must be able to do, and what it promises.
//! - [`wire`]: numbers and layouts of the protocol; no I/O.
//! - [`mod@negotiate`]: from an accepted stream to a chosen volume.
//! - [`mod@serve`]: requests and replies on one connection, many at a time, memory bounded.
//!
//! Promises kept to the client:
//! 1. A reply is sent only after the volume has finished the request; a flush covers every write replied to before it
//!    on any connection, because all connections of an export share one [`Volume`].
//! 2. Bytes from the client are bounded before anything is allocated for them.
//! 3. A client that breaks the protocol loses its own connection and nothing else.

#![forbid(unsafe_code)]

pub mod negotiate;
pub mod serve;
pub mod volume;
pub mod wire;

pub use negotiate::{Encryption, Negotiated, negotiate};
pub use serve::{Limits, serve};
pub use volume::{Catalog, Extent, Fault, Listing, Volume};
