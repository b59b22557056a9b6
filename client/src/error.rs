//! How a call ends that does not succeed.

use std::time::Duration;

use nacre_pg::op::OpError;
use nacre_proto::status::Status;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object refused: it is not there, a guard did not hold. Nothing of the vector took effect.
    #[error("{object}: {source}")]
    Object {
        /// Which.
        object: String,
        /// Why.
        source: OpError,
    },
    /// There is no such pool.
    #[error("there is no pool {name}; `nacre pool ls` lists them")]
    NoPool {
        /// Its name.
        name: String,
    },
    /// It took longer than this client waits.
    #[error("{what}: no answer within {patience:?}; last: {last}")]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long was waited.
        patience: Duration,
        /// What stood in the way.
        last: String,
    },
    /// A service refused the call.
    #[error("{0}")]
    Refused(#[from] Status),
    /// This client's keys.
    #[error(transparent)]
    Keys(#[from] nacre_net::tls::files::FilesError),
    /// This client's identity.
    #[error(transparent)]
    Tls(#[from] nacre_net::tls::TlsError),
    /// There is no identity.
    #[error("{0} holds no identity: is the cluster up, and is this its data folder?")]
    NoIdentity(String),
    /// The map could not be followed.
    #[error("the cluster map: {0}")]
    Map(String),
    /// An answer of another shape than the request's.
    #[error("{object}: the answer has another shape than the request; client and OSDs are of releases too far apart")]
    Shape {
        /// Which object.
        object: String,
    },
}
