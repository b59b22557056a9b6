//! What monitors say to each other and to everyone else: messages, clients and servers generated from
//! `proto/proto/nacre/mon/v1`, and the handle with which a daemon or an operator's verb reaches them. An OSD or a
//! client talks to monitors through this, without depending on one.

#![forbid(unsafe_code)]

pub mod audit;
pub mod channel;
pub mod client;
pub mod join;
pub mod keys;
pub mod status;

pub use client::MonClient;

/// Package `nacre.mon.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated; the .proto files carry the documentation"
    )]
    tonic::include_proto!("nacre.mon.v1");
}
