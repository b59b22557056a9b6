//! Which peers are believed. One judgement, used by the verifiers in a handshake, by local sockets and by connections
//! that live while the revocation list changes.
//!
//! Invariant: an [`Identity`] that this gave out was signed by the cluster's authority for the purpose it was shown for,
//! was within its dates, belonged to this cluster and was not revoked, all at the moment it was given out; and it says
//! which authority's signature was checked, so that it can be judged again when that authority is believed no more.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::verify_tls13_signature;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime as RustlsTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as RustlsError, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use super::{TlsError, provider};
use crate::identity::join::authority_fingerprint;
use crate::identity::revocation::Revoked;
use crate::identity::{ClusterId, Identity, IdentityError, Name, Revocations, UnixTime};

/// Why a peer is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It showed none.
    #[error("it showed no certificate; let it join the cluster first")]
    NoCertificate,
    /// Signed by someone else, or badly.
    #[error("its certificate was not signed by this cluster's authority")]
    ForeignAuthority,
    /// Signed by one that was believed when the connection was made.
    #[error(
        "its certificate was signed by an authority that has been replaced since; with a newer one it may connect again"
    )]
    RetiredAuthority,
    /// Too old.
    #[error("its certificate has expired; was it away too long to renew it? let it join anew")]
    Expired,
    /// From the future.
    #[error("its certificate is not valid yet; compare the clocks of both machines")]
    NotYetValid,
    /// On the list.
    #[error("{0}")]
    Revoked(#[from] Revoked),
    /// Another cluster's.
    #[error("it belongs to cluster {is}, not to {ours}")]
    WrongCluster {
        /// Its.
        is: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// A client's certificate used as a server's.
    #[error("its certificate was not made for this purpose")]
    WrongPurpose,
    /// Not the one we wanted to speak to.
    #[error("it is {is}, we wanted {wanted}; has the address been given to another?")]
    Unexpected {
        /// Who answered.
        is: Name,
        /// Who should have.
        wanted: String,
    },
    /// Its names and capabilities cannot be read.
    #[error(transparent)]
    Unreadable(#[from] IdentityError),
    /// Anything else rustls finds.
    #[error("its certificate is not acceptable: {0}")]
    Other(String),
}

impl PeerError {
    /// Whether this befalls whoever stays connected for long: the certificate of that time has had its day, and whoever
    /// has a newer one connects again. No misdeed, so nothing for the audit.
    #[must_use]
    pub fn is_of_age(&self) -> bool {
        matches!(self, PeerError::Expired | PeerError::RetiredAuthority)
    }

    /// The word this is counted under.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            PeerError::NoCertificate => "no_certificate",
            PeerError::ForeignAuthority => "foreign_authority",
            PeerError::RetiredAuthority => "retired_authority",
            PeerError::Expired => "certificate_expired",
            PeerError::NotYetValid => "certificate_not_yet_valid",
            PeerError::Revoked(_) => "certificate_revoked",
            PeerError::WrongCluster { .. } => "wrong_cluster",
            PeerError::WrongPurpose => "wrong_purpose",
            PeerError::Unexpected { .. } => "unexpected_peer",
            PeerError::Unreadable(_) => "certificate_unreadable",
            PeerError::Other(_) => "certificate_other",
        }
    }

    pub(super) fn from_rustls(e: &CertificateError) -> PeerError {
        use CertificateError as E;
        match e {
            E::Expired | E::ExpiredContext { .. } => PeerError::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => PeerError::NotYetValid,
            E::UnknownIssuer | E::BadSignature => PeerError::ForeignAuthority,
            // rustls keeps no more than the word; which entry of the list it was is told by `judge_again`.
            E::Revoked => PeerError::Revoked(Revoked::Serial),
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => PeerError::WrongPurpose,
            E::Other(OtherError(inner)) => match inner.downcast_ref::<PeerError>() {
                Some(ours) => ours.clone(),
                None => PeerError::Other(inner.to_string()),
            },
            other => PeerError::Other(other.to_string()),
        }
    }

    /// As rustls reports it, with the alert that tells the peer the kind of refusal.
    fn into_rustls(self) -> RustlsError {
        RustlsError::InvalidCertificate(match self {
            PeerError::Revoked(_) => CertificateError::Revoked,
            PeerError::Expired => CertificateError::Expired,
            PeerError::NotYetValid => CertificateError::NotValidYet,
            PeerError::ForeignAuthority => CertificateError::UnknownIssuer,
            PeerError::WrongPurpose => CertificateError::InvalidPurpose,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The peer connected to us.
    Client,
    /// We connected to the peer.
    Server,
}

/// One authority, and what checks its signatures.
#[derive(Clone)]
struct Anchor {
    certificate: Vec<u8>,
    fingerprint: [u8; 32],
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

#[derive(Clone)]
struct Anchors {
    authorities: Vec<Anchor>,
    revocations: Arc<Revocations>,
}

/// What a process believes; one per process, shared by every connection.
pub struct Trust {
    cluster: ClusterId,
    anchors: RwLock<Arc<Anchors>>,
    changes: AtomicU64,
    told: tokio::sync::watch::Sender<u64>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust of cluster {}", self.cluster)
    }
}

impl Anchor {
    fn new(certificate: Vec<u8>) -> Result<Anchor, TlsError> {
        let setup = |e: &dyn fmt::Display| TlsError::Setup(format!("the authority's certificate: {e}"));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificate.as_slice())).map_err(|e| setup(&e))?;
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().map_err(|e| setup(&e))?;
        let fingerprint = authority_fingerprint(&certificate);
        Ok(Anchor { certificate, fingerprint, roots, clients })
    }

    /// Whether it signed this certificate, for this purpose, and the dates hold.
    fn signed(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        purpose: Purpose,
        now: RustlsTime,
    ) -> Result<(), PeerError> {
        let signed = match purpose {
            Purpose::Client => self.clients.verify_client_cert(leaf, rest, now).map(|_| ()),
            Purpose::Server => verify_server(leaf, rest, &self.roots, now),
        };
        signed.map_err(|e| match e {
            RustlsError::InvalidCertificate(inner) => PeerError::from_rustls(&inner),
            other => PeerError::Other(other.to_string()),
        })
    }
}

fn anchors(authorities: Vec<Vec<u8>>) -> Result<Vec<Anchor>, TlsError> {
    if authorities.is_empty() {
        return Err(TlsError::Setup("no authority is known, so nobody could be believed".into()));
    }
    authorities.into_iter().map(Anchor::new).collect()
}

impl Trust {
    /// Believes certificates of `cluster` that one of `authorities` (DER) signed; more than one while the authority is
    /// being replaced.
    pub fn new(cluster: ClusterId, authorities: Vec<Vec<u8>>) -> Result<Arc<Trust>, TlsError> {
        let anchors = Anchors { authorities: anchors(authorities)?, revocations: Arc::default() };
        let anchors = RwLock::new(Arc::new(anchors));
        Ok(Arc::new(Trust { cluster, anchors, changes: AtomicU64::new(1), told: tokio::sync::watch::Sender::new(1) }))
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authorities, in DER.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.current().authorities.iter().map(|authority| authority.certificate.clone()).collect()
    }

    fn current(&self) -> Arc<Anchors> {
        self.anchors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, with: Anchors) {
        *self.anchors.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(with);
        // After the list: who sees the new number sees the new list.
        let count = self.changes.fetch_add(1, Ordering::Release) + 1;
        self.told.send_replace(count);
    }

    /// A new list of revocations, from a new map. Connections judge their peer again before they handle another frame.
    pub fn set_revocations(&self, list: Arc<Revocations>) {
        let now = self.current();
        if now.revocations == list {
            return;
        }
        self.replace(Anchors { authorities: now.authorities.clone(), revocations: list });
    }

    /// Other authorities, for example old and new one while the authority is replaced; the one that signs first. None at
    /// all is no news: then those that are believed stay.
    pub fn set_authorities(&self, authorities: Vec<Vec<u8>>) -> Result<(), TlsError> {
        if authorities.is_empty() || self.authorities() == authorities {
            return Ok(());
        }
        let authorities = anchors(authorities)?;
        self.replace(Anchors { authorities, revocations: self.current().revocations.clone() });
        Ok(())
    }

    /// Counts changes: a connection that remembers the count knows when to judge its peer again.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Tells of each change.
    #[must_use]
    pub fn news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Returns when a peer that is believed now is no longer: its certificate has ended or was revoked, or who signed it
    /// was replaced. For the owner of a connection, which this ends.
    pub async fn until_doubted(&self, who: &Identity) -> PeerError {
        let mut told = self.told.subscribe();
        loop {
            told.borrow_and_update();
            let now = UnixTime::now();
            if let Err(error) = self.judge_again(who, now) {
                return error;
            }
            // The machine's clock may be set meanwhile: look again now and then.
            let left = who.not_after.since(now).min(std::time::Duration::from_secs(600));
            let _ = tokio::time::timeout(left, told.changed()).await;
        }
    }

    /// Judges a chain, leaf first.
    pub fn judge(&self, chain: &[CertificateDer<'_>], purpose: Purpose, now: UnixTime) -> Result<Identity, PeerError> {
        let (leaf, rest) = chain.split_first().ok_or(PeerError::NoCertificate)?;
        let at = RustlsTime::since_unix_epoch(std::time::Duration::from_secs(now.0));
        let mut why = PeerError::ForeignAuthority;
        for authority in &self.current().authorities {
            match authority.signed(leaf, rest, purpose, at) {
                Ok(()) => {
                    let identity = Identity { signer: Some(authority.fingerprint), ..Identity::from_der(leaf)? };
                    self.judge_again(&identity, now)?;
                    return Ok(identity);
                }
                // What the one who did sign it says is worth more than that another did not.
                Err(PeerError::ForeignAuthority) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whether peers that trust what we trust would believe this certificate of our own.
    pub fn judge_own(&self, certificate: &[u8], now: UnixTime) -> Result<Identity, PeerError> {
        self.judge(&[CertificateDer::from(certificate)], Purpose::Client, now)
    }

    /// Judges a known peer once more: what may have changed since.
    pub fn judge_again(&self, who: &Identity, now: UnixTime) -> Result<(), PeerError> {
        if who.cluster != self.cluster {
            return Err(PeerError::WrongCluster { is: who.cluster, ours: self.cluster });
        }
        if now >= who.not_after {
            return Err(PeerError::Expired);
        }
        if now < who.not_before {
            return Err(PeerError::NotYetValid);
        }
        let current = self.current();
        let believed = |signer| current.authorities.iter().any(|authority| authority.fingerprint == signer);
        if who.signer.is_some_and(|signer| !believed(signer)) {
            return Err(PeerError::RetiredAuthority);
        }
        Ok(current.revocations.judge(who)?)
    }
}

fn verify_server(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: RustlsTime,
) -> Result<(), RustlsError> {
    let leaf = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider().signature_verification_algorithms;
    tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, roots, rest, now, algorithms.all)
}

/// [`Trust`] as rustls asks it.
#[derive(Debug)]
pub(super) struct TrustVerifier(pub(super) Arc<Trust>);

fn refuse_tls12() -> RustlsError {
    RustlsError::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

fn chain<'a>(leaf: &'a CertificateDer<'_>, rest: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(rest).map(|c| CertificateDer::from(c.as_ref())).collect()
}

impl ClientCertVerifier for TrustVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: RustlsTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        self.0
            .judge(&chain(leaf, rest), Purpose::Client, UnixTime(now.as_secs()))
            .map(|_| ClientCertVerified::assertion())
            .map_err(PeerError::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for TrustVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: RustlsTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        // The name is compared by the dialer, which knows whom it wants; host names mean nothing here.
        self.0
            .judge(&chain(leaf, rest), Purpose::Server, UnixTime(now.as_secs()))
            .map(|_| ServerCertVerified::assertion())
            .map_err(PeerError::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Believes whichever authority has this fingerprint, for a newcomer that knows nothing but a join token.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pub(super) authority: [u8; 32],
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: RustlsTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let pinned = rest
            .iter()
            .find(|cert| authority_fingerprint(cert) == self.authority)
            .ok_or_else(|| PeerError::ForeignAuthority.into_rustls())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(pinned.as_ref()))?;
        verify_server(leaf, &[], &roots, now)?;
        // Only a monitor answers newcomers: an OSD's key must not be enough to collect join secrets.
        let who = Identity::from_der(leaf).map_err(|e| PeerError::from(e).into_rustls())?;
        if who.name.kind() != crate::identity::Kind::Mon {
            let wrong = PeerError::Unexpected { is: who.name, wanted: "a monitor".into() };
            return Err(wrong.into_rustls());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
