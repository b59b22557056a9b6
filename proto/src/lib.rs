//! What two processes, or two layers of one, must agree on. Plain types only: no sockets, clocks, threads or files.
//!
//! - [`ids`]: names of things and of moments. A number that could be mistaken for another is its own type.
//! - [`status`]: how a call ends when it does not succeed, and what the caller does about it.
//! - [`v1`]: generated messages of commands, reports and health.
//! - [`txn`]: what a placement group asks of its store. The two do not know each other; they meet here.

pub mod ids;
pub mod status;
pub mod txn;

/// Messages of package `nacre.v1`: commands, reports, health. See the `.proto` files beside the source.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/nacre.v1.rs"));
}
