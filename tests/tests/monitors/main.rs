//! Real monitors under a real supervisor: killed, damaged, cut off, refused, filled; and who may belong to them.
//!
//! Needs the binary: `cargo build -p nacre-cli` beside this, or `NACRE_BIN`.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod cluster;
mod commit;
mod crashes;
mod daemons;
mod epochs;
mod identities;
mod partition;
mod security;
mod verbs;
