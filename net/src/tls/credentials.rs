//! The own certificate and key. Shared by every server and client configuration of the process, and swapped in place
//! when the certificate is renewed: connections that stand are not touched, new handshakes use the new one.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{TlsError, provider};
use crate::identity::{Identity, Keypair};

#[derive(Debug)]
struct Held {
    identity: Arc<Identity>,
    member: Arc<CertifiedKey>,
    /// The same with the authority behind it, for newcomers who know only its fingerprint.
    introduction: Arc<CertifiedKey>,
}

/// Who this process is.
#[derive(Debug)]
pub struct Credentials(RwLock<Arc<Held>>);

fn hold(pair: &Keypair, authority: &[u8]) -> Result<Held, TlsError> {
    let setup = |e: &dyn std::fmt::Display| TlsError::Setup(e.to_string());
    let identity = Identity::from_der(&pair.certificate).map_err(|e| setup(&e))?;
    let leaf = CertificateDer::from(pair.certificate.clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.key.to_vec()));
    let key = provider().key_provider.load_private_key(key).map_err(|e| setup(&e))?;
    let member = CertifiedKey::new(vec![leaf.clone()], key.clone());
    member.keys_match().map_err(|e| setup(&e))?;
    let chain = vec![leaf, CertificateDer::from(authority.to_vec())];
    Ok(Held {
        identity: Arc::new(identity),
        member: Arc::new(member),
        introduction: Arc::new(CertifiedKey::new(chain, key)),
    })
}

impl Credentials {
    /// Holds a certificate and its key; `authority` is the certificate that signed it.
    pub fn new(pair: &Keypair, authority: &[u8]) -> Result<Arc<Credentials>, TlsError> {
        Ok(Arc::new(Credentials(RwLock::new(Arc::new(hold(pair, authority)?)))))
    }

    /// Takes a renewed certificate from now on. Refused if certificate and key do not fit, or if it bears another name.
    pub fn install(&self, pair: &Keypair, authority: &[u8]) -> Result<(), TlsError> {
        let next = hold(pair, authority)?;
        let now = self.identity();
        if (next.identity.cluster, &next.identity.name) != (now.cluster, &now.name) {
            return Err(TlsError::Setup(format!(
                "a certificate for {} does not renew {}",
                next.identity.name, now.name
            )));
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    fn held(&self) -> Arc<Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who this process is, as its current certificate says.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.held().identity.clone()
    }

    /// The current certificate in DER, as it is shown to peers on a local socket.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.held().member.cert.first().map(|c| c.to_vec()).unwrap_or_default()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.held().member.clone())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.held().member.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The credentials as newcomers see them, the authority's certificate included.
#[derive(Debug)]
pub(super) struct Introduction(pub(super) Arc<Credentials>);

impl ResolvesServerCert for Introduction {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.held().introduction.clone())
    }
}
