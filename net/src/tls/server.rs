//! The end of a handshake that was connected to.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{Acceptor, NoServerSessionStorage};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::credentials::Introduction;
use super::trust::{Purpose, TrustVerifier};
use super::{ALPN_JOIN, Credentials, HANDSHAKE_TIMEOUT, PeerError, TlsError, Trust, provider};
use crate::identity::{Identity, UnixTime};

/// A connection whose handshake is done.
#[derive(Debug)]
pub enum Accepted<S> {
    /// The peer is a member of the cluster.
    Member(Box<TlsStream<S>>, Arc<Identity>),
    /// The peer showed no certificate and asked to join; it may do nothing else. Only if newcomers were allowed.
    Newcomer(Box<TlsStream<S>>),
}

/// Accepts TLS connections.
#[derive(Clone, Debug)]
pub struct TlsServer {
    trust: Arc<Trust>,
    members: Arc<ServerConfig>,
    newcomers: Option<Arc<ServerConfig>>,
}

impl TlsServer {
    /// Accepts members of the cluster that speak one of `protocols` ([`super::ALPN_FRAMES`], [`super::ALPN_GRPC`]).
    pub fn new(trust: Arc<Trust>, own: Arc<Credentials>, protocols: &[&[u8]]) -> Result<TlsServer, TlsError> {
        let verifier = Arc::new(TrustVerifier(trust.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| TlsError::Setup(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(own);
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        without_resumption(&mut config);
        Ok(TlsServer { trust, members: Arc::new(config), newcomers: None })
    }

    /// Also accepts peers without certificate, if they ask for [`ALPN_JOIN`] and nothing else. For monitors.
    pub fn with_newcomers(mut self, own: Arc<Credentials>) -> Result<TlsServer, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| TlsError::Setup(e.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Introduction(own)));
        config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        without_resumption(&mut config);
        self.newcomers = Some(Arc::new(config));
        Ok(self)
    }

    /// What is believed.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Makes the handshake on a fresh connection.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<Accepted<S>, TlsError> {
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await.map_err(|_| TlsError::Timeout)?
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<Accepted<S>, TlsError> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(TlsError::from_io)?;
        let joins = start.client_hello().alpn().is_some_and(|mut offered| {
            let first = offered.next();
            first == Some(ALPN_JOIN) && offered.next().is_none()
        });
        if let (true, Some(config)) = (joins, &self.newcomers) {
            let stream = start.into_stream(config.clone()).await.map_err(TlsError::from_io)?;
            return Ok(Accepted::Newcomer(Box::new(stream)));
        }
        let stream = start.into_stream(self.members.clone()).await.map_err(TlsError::from_io)?;
        // rustls refuses a handshake without one of our protocols only if the peer offers some: nothing is not enough.
        if stream.get_ref().1.alpn_protocol().is_none() {
            return Err(TlsError::Protocol("the peer offered no protocol of ours".into()));
        }
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
        let identity = self.trust.judge(std::slice::from_ref(leaf), Purpose::Client, UnixTime::now())?;
        Ok(Accepted::Member(Box::new(stream), Arc::new(identity)))
    }
}

fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}
