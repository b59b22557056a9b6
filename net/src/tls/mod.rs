//! Mutual TLS 1.3 over rustls, for every TCP connection of the cluster: frames and gRPC alike.
//!
//! - [`trust`]: which peers are believed: authority, dates, purpose, cluster, revocations. One judgement for TLS
//!   handshakes, for peers on a local socket, and for connections that live while the list changes.
//! - [`credentials`]: the own certificate and key, swapped while connections run.
//! - [`server`], [`client`]: the two ends of a handshake.
//! - [`watched`]: a stream that ends when its peer is no longer believed.
//! - [`renew`]: a process renews its own certificate. - [`files`]: where it keeps it on disk.
//!
//! One crypto provider (ring), one protocol version, AES-128-GCM first. Sessions are not resumed: a resumed session would
//! skip the judgement, and connections are few and long.
//!
//! For tonic, [`TlsServer::accept`] and [`TlsClient::connect`] give plain `AsyncRead + AsyncWrite` streams with the
//! peer's [`Identity`](crate::identity::Identity) beside them; the crate that serves gRPC wraps them in its own types.

pub mod client;
pub mod credentials;
pub mod files;
pub mod renew;
pub mod server;
pub mod trust;
pub mod watched;

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use client::{Expect, TlsClient};
pub use credentials::Credentials;
pub use server::{Accepted, TlsServer};
pub use trust::{PeerError, Trust};
pub use watched::Watched;

/// Protocol name of frames in the handshake.
pub const ALPN_FRAMES: &[u8] = b"nacre/1";
/// Protocol name of gRPC.
pub const ALPN_GRPC: &[u8] = b"h2";
/// Protocol name of a newcomer without a certificate that wants to join, over gRPC.
pub const ALPN_JOIN: &[u8] = b"nacre-join/1";

/// A handshake takes no longer than this, or the connection is ended: a peer that says nothing holds no resources.
pub const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// What goes wrong in a handshake.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer is not believed, or not whom we wanted.
    #[error("peer refused: {0}")]
    Peer(#[from] PeerError),
    /// The peer did not believe us, as its alert says.
    #[error("the peer refused our certificate ({0}); `nacre cert list` on a monitor shows its state")]
    RefusedByPeer(String),
    /// It spoke no TLS, or not ours.
    #[error("TLS handshake failed: {0}")]
    Protocol(String),
    /// The connection broke.
    #[error("connection lost during the TLS handshake: {0}")]
    Io(std::io::Error),
    /// Silence.
    #[error("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// Own material that does not fit together.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl TlsError {
    /// The word this is counted under.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            TlsError::Peer(e) => e.reason(),
            TlsError::RefusedByPeer(_) => "refused_by_peer",
            TlsError::Protocol(_) => "tls_protocol",
            TlsError::Io(_) => "io",
            TlsError::Timeout => "handshake_timeout",
            TlsError::Setup(_) => "tls_setup",
        }
    }

    /// Sorts what a stream of tokio-rustls reports, in the handshake or, for a refusal by the peer, in the first read.
    pub(crate) fn from_io(e: std::io::Error) -> TlsError {
        use tokio_rustls::rustls::{AlertDescription, Error};
        let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return TlsError::Io(e) };
        match tls {
            Error::NoCertificatesPresented => PeerError::NoCertificate.into(),
            Error::InvalidCertificate(inner) => PeerError::from_rustls(inner).into(),
            Error::AlertReceived(
                alert @ (AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::UnsupportedCertificate),
            ) => TlsError::RefusedByPeer(format!("{alert:?}")),
            other => TlsError::Protocol(other.to_string()),
        }
    }
}

/// The one provider, reduced to what we use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> = std::sync::LazyLock::new(|| {
        use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
        let mut provider = ring::default_provider();
        provider.cipher_suites =
            vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
        Arc::new(provider)
    });
    PROVIDER.clone()
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
