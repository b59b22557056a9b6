//! The end of a handshake that connects.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::trust::{PinVerifier, Purpose, TrustVerifier};
use super::{ALPN_JOIN, Credentials, HANDSHAKE_TIMEOUT, PeerError, TlsError, Trust, provider};
use crate::identity::{Identity, Kind, Name, UnixTime};

/// Whom a dialer wants to speak to. Addresses are no identities: the certificate must say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This one.
    Name(Name),
    /// Anyone of this kind, for example any monitor.
    Kind(Kind),
}

impl Expect {
    /// Whether this is the peer that was wanted.
    pub fn check(&self, who: &Identity) -> Result<(), PeerError> {
        let wanted = match self {
            Expect::Name(name) if *name == who.name => return Ok(()),
            Expect::Kind(kind) if *kind == who.name.kind() => return Ok(()),
            Expect::Name(name) => name.to_string(),
            Expect::Kind(kind) => format!("any {}", kind.word()),
        };
        Err(PeerError::Unexpected { is: who.name.clone(), wanted })
    }
}

/// Makes TLS connections as a member of the cluster.
#[derive(Clone)]
pub struct TlsClient {
    trust: Arc<Trust>,
    connector: TlsConnector,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsClient in {:?}", self.trust)
    }
}

impl TlsClient {
    /// Connects as `own`, speaking `protocol`.
    pub fn new(trust: Arc<Trust>, own: Arc<Credentials>, protocol: &[u8]) -> Result<TlsClient, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| TlsError::Setup(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustVerifier(trust.clone())))
            .with_client_cert_resolver(own);
        Ok(TlsClient { trust, connector: connector(config, protocol) })
    }

    /// What is believed.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Makes the handshake on a fresh connection, and checks that it is the right peer that answered.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        expect: &Expect,
    ) -> Result<(TlsStream<S>, Arc<Identity>), TlsError> {
        let stream = handshake(&self.connector, stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
        let identity = self.trust.judge(std::slice::from_ref(leaf), Purpose::Server, UnixTime::now())?;
        expect.check(&identity)?;
        Ok((stream, Arc::new(identity)))
    }
}

/// Connects to a monitor without a certificate, knowing only the fingerprint of the authority from a join token. Gives
/// the stream, the authority's certificate, which is to be trusted from now on, and the monitor.
pub async fn connect_newcomer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    authority: [u8; 32],
) -> Result<(TlsStream<S>, Vec<u8>, Identity), TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier { authority }))
        .with_no_client_auth();
    let stream = handshake(&connector(config, ALPN_JOIN), stream).await?;
    let chain = stream.get_ref().1.peer_certificates().ok_or(PeerError::NoCertificate)?;
    let pinned = chain
        .iter()
        .find(|cert| crate::identity::join::authority_fingerprint(cert) == authority)
        .ok_or(PeerError::ForeignAuthority)?
        .to_vec();
    // Others serve as well, but only a monitor may see a token.
    let monitor = Identity::from_der(chain.first().ok_or(PeerError::NoCertificate)?).map_err(PeerError::from)?;
    Expect::Kind(Kind::Mon).check(&monitor)?;
    Ok((stream, pinned, monitor))
}

fn connector(mut config: ClientConfig, protocol: &[u8]) -> TlsConnector {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    TlsConnector::from(Arc::new(config))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: S,
) -> Result<TlsStream<S>, TlsError> {
    // Names are URIs in the certificate and compared by `Expect`; rustls wants a host name all the same.
    let name = ServerName::try_from("nacre").map_err(|e| TlsError::Setup(e.to_string()))?;
    let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await;
    done.map_err(|_| TlsError::Timeout)?.map_err(TlsError::from_io)
}
