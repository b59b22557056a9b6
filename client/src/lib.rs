//! The client library: a cluster, its pools, their objects.
//!
//! ```no_run
//! # async fn example() -> Result<(), nacre_client::Error> {
//! use nacre_client::{Cluster, Settings};
//! let cluster = Cluster::connect(Settings::of_folder("tls".as_ref(), ["127.0.0.1:7100".to_owned()])?).await?;
//! let pool = cluster.pool("rbd").await?;
//! pool.object("greeting").write_full("hello").await?;
//! assert_eq!(&pool.object("greeting").read(0, 100).await?[..], b"hello");
//! # Ok(()) }
//! ```
//!
//! What it promises: a vector of operations takes effect on its object all or not at all, and once, however often
//! connections end, OSDs die and maps change before its answer is here. It waits for as long as [`Settings::patience`]
//! says, which may be for ever.
//!
//! `examples/tour.rs` shows what it can do.
//!
//! - `cluster`: the handle; the map it follows; connections.
//! - `call`: the way of one request until its answer.
//! - `object`: pools and objects, as a user writes them.
//! - `watch`: being told when someone has something to say about an object.
//! - `snapshot`: numbers of snapshots, and shutting a session out.
//! - `operate`: how placement groups are, and orders to them.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod call;
mod cluster;
mod error;
mod object;
mod operate;
mod snapshot;
mod watch;

pub use cluster::{Cluster, Settings};
pub use error::Error;
pub use nacre_pg::class;
pub use nacre_pg::io::Order;
pub use nacre_pg::op::{CloneLine, Compare, Op, OpError, OpResult, SnapContext};
pub use nacre_pg::wire::PgLine;
pub use nacre_proto::ids::OsdId;
pub use nacre_proto::ids::{ObjectId, PgId, PoolId, SessionId, SnapId, Version};
pub use nacre_proto::status::Code;
pub use object::{Done, Listing, Object, Pool, Stat};
pub use operate::Place;
pub use watch::{Notification, Notified, Watch};
