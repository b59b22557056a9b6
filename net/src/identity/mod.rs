//! Who a process is, how it proves it, and what it may do.
//!
//! - [`name`]: names such as `osd.3` and `client.alice`, and the cluster's id.
//! - [`caps`]: what an identity may do: service, operation class, pool, namespace, path.
//! - [`gate`]: the one place a service asks "may it?", and where a refusal is audited.
//! - [`certificate`]: reading an [`Identity`] out of a certificate.
//! - [`authority`]: the cluster's certificate authority as a value: issue, sign a request. The monitors keep it.
//! - [`revocation`]: the list, carried by the cluster map, of what is no longer believed.
//! - [`renewal`]: when to renew a certificate; a value that is told the time.
//! - [`join`]: one-time tokens and signing requests; a value that is told the time. The monitors keep it.
//! - [`seal`]: how the authority's key is kept where others could read it.
//!
//! Nothing here reads a clock, a file or a socket. Keys and serial numbers take entropy from the operating system; that
//! is the one thing which is not a function of the arguments.
//!
//! A certificate carries one name and its capabilities, both as URIs in the subject's alternative names:
//! `nacre://CLUSTER/NAME` and `nacre-caps:TEXT` (percent-encoded). Capabilities live in the certificate so that a
//! service can judge a call without asking anyone; they change by issuing a new certificate and revoking what was
//! issued before.

pub mod authority;
pub mod caps;
pub mod certificate;
pub mod gate;
pub mod join;
pub mod name;
pub mod renewal;
pub mod revocation;
pub mod seal;

pub use authority::{Authority, Grant, Keypair};
pub use caps::{Capability, Caps, Ops, Service};
pub use certificate::Identity;
pub use gate::{Access, Audit, Denied, Gate};
pub use name::{ClusterId, Kind, Name};
pub use renewal::Renewal;
pub use revocation::Revocations;
pub use seal::SealKey;

/// What goes wrong with names, capabilities and certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A name that is not `KIND.ID`.
    #[error("{text:?} is not a name: {why}; names look like osd.3, mon.1 or client.alice")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A cluster id that is not a UUID.
    #[error("{0:?} is not a cluster id: 32 hexadecimal digits, with or without dashes")]
    ClusterId(String),
    /// A capability that cannot be read.
    #[error("capability {text:?}: {why}; capabilities look like \"osd rw pool=vms; mon r\"")]
    Capability {
        /// The clause that was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Bytes that are no certificate, or one this cluster did not make.
    #[error("the certificate cannot be used: {0}")]
    Certificate(&'static str),
    /// A signing request that cannot be honoured.
    #[error("the signing request cannot be used: {0}")]
    Request(String),
    /// A key or a signature could not be made.
    #[error("cannot sign for {what}: {why}")]
    Sign {
        /// For whom.
        what: String,
        /// What the signer said.
        why: String,
    },
    /// A lifetime outside what dates can hold.
    #[error("validity from {from} for {seconds} s is outside what a certificate can say")]
    Validity {
        /// Start, seconds since 1970.
        from: u64,
        /// Length.
        seconds: u64,
    },
}

/// Seconds since 1970, as the cluster counts time in certificates and leases. Always passed in, never read here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The machine's clock. For the shells; nothing in this module calls it.
    #[must_use]
    pub fn now() -> UnixTime {
        UnixTime(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }

    /// This much later, or the end of time.
    #[must_use]
    pub fn after(self, by: std::time::Duration) -> UnixTime {
        UnixTime(self.0.saturating_add(by.as_secs()))
    }

    /// This much earlier, or 1970.
    #[must_use]
    pub fn before(self, by: std::time::Duration) -> UnixTime {
        UnixTime(self.0.saturating_sub(by.as_secs()))
    }

    /// How long from `earlier` to here; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: UnixTime) -> std::time::Duration {
        std::time::Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}
