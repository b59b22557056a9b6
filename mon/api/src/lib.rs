//! What monitors say to each other and to everyone else: messages, clients and servers generated from
//! `proto/proto/nacre/mon/v1`. No behaviour lives here, so that an OSD or a client can talk to a monitor without
//! depending on one.

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
