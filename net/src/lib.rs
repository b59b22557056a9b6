//! Transport and the runtime every daemon shares: who a peer is, how bytes get to it, and what a process needs around
//! its work (settings, logs, metrics, an admin socket, an orderly end).
//!
//! - [`identity`]: names, certificates, capabilities, joining. Values without clock or I/O.
//! - [`tls`]: mutual TLS on every TCP connection, for frames and gRPC alike.
//! - [`frame`]: what a message looks like on a stream.
//! - [`conn`]: calls, replies and notices on a connection; the rules of sessions.
//! - [`node`]: a process in the network: listening, dialing, coming back; also in memory.
//! - [`metrics`]: what is counted.
//! - [`mod@alarm`]: a clock that wakes an idle process once, not three times.
//! - [`daemon`]: settings, logs, `/metrics`, admin socket, an orderly start and end.
//!
//! What crosses the border of this crate: meaning stays outside. A frame's metadata and data are bytes to it, a method
//! is a number, a status is a code; it knows who is speaking and that what was said arrived whole.

#![forbid(unsafe_code)]

pub mod alarm;
pub mod conn;
pub mod daemon;
pub mod frame;
pub mod identity;
pub mod metrics;
pub mod node;
pub mod tls;
