//! The cluster's certificate authority as a value: a certificate, its key, and the verbs issue and sign. Who may have
//! what is decided by the monitors ([`super::join`]); where the key is stored, too.
//!
//! Invariants: a certificate this signs bears the name, capabilities and generation it was told to bear, never what a
//! signing request asked for; of a request only the public key and the proof that its holder has the private one count.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

use super::certificate::Claim;
use super::{Caps, ClusterId, IdentityError, Name, UnixTime};

/// Certificates are dated back this far, but no more than a tenth of their life, so that a peer whose clock is behind
/// believes a fresh one.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The longest signing request that is looked at.
pub const MAX_REQUEST: usize = 16 * 1024;

/// A certificate in DER and the private key to it in PKCS #8 DER. The key is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Keypair {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keypair({} bytes of certificate, key not shown)", self.certificate.len())
    }
}

/// What a certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name.
    pub name: Name,
    /// The capabilities.
    pub caps: Caps,
    /// The edition, see [`super::Revocations`].
    pub generation: u64,
}

/// The authority of one cluster.
pub struct Authority {
    cluster: ClusterId,
    pair: Keypair,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority of {}", self.cluster)
    }
}

impl Authority {
    /// A new authority for a new cluster.
    pub fn create(cluster: ClusterId, now: UnixTime, lifetime: Duration) -> Result<Authority, IdentityError> {
        let sign = |e: rcgen::Error| IdentityError::Sign { what: "the authority".into(), why: e.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let mut params = blank(&format!("nacre authority {cluster}"), now, lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(sign)?;
        let pair = Keypair { certificate: certificate.der().to_vec(), key: Zeroizing::new(key.serialize_der()) };
        Authority::open(cluster, pair)
    }

    /// The authority out of what [`Authority::keypair`] gave.
    pub fn open(cluster: ClusterId, pair: Keypair) -> Result<Authority, IdentityError> {
        let key = KeyPair::try_from(pair.key.as_slice())
            .map_err(|_| IdentityError::Certificate("the authority's key cannot be read"))?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from_slice(&pair.certificate), key)
            .map_err(|_| IdentityError::Certificate("the authority's certificate cannot be read"))?;
        if !issuer.key_usages().contains(&KeyUsagePurpose::KeyCertSign) {
            return Err(IdentityError::Certificate("it may not sign, so it is not an authority's"));
        }
        Ok(Authority { cluster, pair, issuer })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What every member of the cluster trusts.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.pair.certificate
    }

    /// Certificate and key, for the monitors' store.
    #[must_use]
    pub fn keypair(&self) -> &Keypair {
        &self.pair
    }

    /// A key and a certificate to it, made here. For the first members of a cluster; later ones keep their key and send
    /// a request.
    pub fn issue(&self, grant: &Grant, now: UnixTime, lifetime: Duration) -> Result<Keypair, IdentityError> {
        let sign = |e: rcgen::Error| IdentityError::Sign { what: grant.name.to_string(), why: e.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let certificate = self.certify(grant, &key, now, lifetime)?;
        Ok(Keypair { certificate, key: Zeroizing::new(key.serialize_der()) })
    }

    /// A certificate for the key of a signing request, saying what `grant` says.
    pub fn sign(
        &self,
        request: &SigningRequest,
        grant: &Grant,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, IdentityError> {
        if request.claim.cluster != self.cluster {
            return Err(IdentityError::Request(format!(
                "it is for cluster {}, this is {}",
                request.claim.cluster, self.cluster
            )));
        }
        self.certify(grant, &request.key, now, lifetime)
    }

    fn certify(
        &self,
        grant: &Grant,
        key: &impl PublicKeyData,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, IdentityError> {
        let sign = |e: rcgen::Error| IdentityError::Sign { what: grant.name.to_string(), why: e.to_string() };
        let mut params = blank(&grant.name.to_string(), now, lifetime)?;
        let claim = Claim {
            cluster: self.cluster,
            name: grant.name.clone(),
            generation: grant.generation,
            caps: grant.caps.clone(),
        };
        params.subject_alt_names = alternative_names(&claim)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if grant.name.kind().serves() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer).map_err(sign)?.der().to_vec())
    }
}

fn blank(subject: &str, now: UnixTime, lifetime: Duration) -> Result<CertificateParams, IdentityError> {
    let date = |t: UnixTime| {
        i64::try_from(t.0)
            .ok()
            .and_then(|t| OffsetDateTime::from_unix_timestamp(t).ok())
            .ok_or(IdentityError::Validity { from: now.0, seconds: lifetime.as_secs() })
    };
    let mut params = CertificateParams::default();
    params.not_before = date(now.before(CLOCK_SKEW.min(lifetime / 10)))?;
    params.not_after = date(now.after(lifetime))?;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    Ok(params)
}

/// Random, positive, and of one length, so that two prints of it agree.
fn serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    bytes
}

fn alternative_names(claim: &Claim) -> Result<Vec<SanType>, IdentityError> {
    let uri = |text: String| {
        text.try_into()
            .map(SanType::URI)
            .map_err(|_| IdentityError::Certificate("its names cannot be written as a URI"))
    };
    claim.uris().into_iter().map(uri).collect()
}

/// A signing request that was read and whose own signature holds: its sender has the private key.
#[derive(Clone)]
pub struct SigningRequest {
    claim: Claim,
    key: rcgen::PublicKey,
    fingerprint: [u8; 32],
}

impl std::fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningRequest({} asks for {})", self.claim.name, self.claim.caps)
    }
}

impl SigningRequest {
    /// Makes a key and a request for a certificate to it. Gives the request in DER, and the key.
    pub fn make(cluster: ClusterId, name: &Name, caps: &Caps) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), IdentityError> {
        let sign = |e: rcgen::Error| IdentityError::Sign { what: name.to_string(), why: e.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        let claim = Claim { cluster, name: name.clone(), generation: 0, caps: caps.clone() };
        params.subject_alt_names = alternative_names(&claim)?;
        let request = params.serialize_request(&key).map_err(sign)?;
        Ok((request.der().to_vec(), Zeroizing::new(key.serialize_der())))
    }

    /// Reads a request from the network.
    pub fn read(der: &[u8]) -> Result<SigningRequest, IdentityError> {
        if der.len() > MAX_REQUEST {
            return Err(IdentityError::Request(format!("{} bytes are more than {MAX_REQUEST}", der.len())));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|e| IdentityError::Request(e.to_string()))?;
        let uris = parsed.params.subject_alt_names.iter().filter_map(|name| match name {
            SanType::URI(uri) => Some(uri.as_str()),
            _ => None,
        });
        let claim = Claim::from_uris(uris)?;
        // What only this version of the authority signs; a request for a weaker key is not turned into a certificate.
        if parsed.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::Request("its key is not ECDSA on P-256".into()));
        }
        let fingerprint = *blake3::hash(&parsed.public_key.subject_public_key_info()).as_bytes();
        Ok(SigningRequest { claim, key: parsed.public_key, fingerprint })
    }

    /// The cluster it is for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.claim.cluster
    }

    /// The name it asks for.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.claim.name
    }

    /// The capabilities it asks for.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.claim.caps
    }

    /// BLAKE3 of the public key: what an operator compares before approving.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn grant(name: &str) -> Grant {
        Grant { name: name.parse().unwrap(), caps: "osd rw pool=vms".parse().unwrap(), generation: 3 }
    }

    #[test]
    fn a_certificate_says_what_was_granted() {
        let authority = Authority::create(ClusterId::random(), NOW, DAY * 3650).unwrap();
        let pair = authority.issue(&grant("client.alice"), NOW, DAY).unwrap();
        let identity = Identity::from_der(&pair.certificate).unwrap();
        assert_eq!(identity.cluster, authority.cluster());
        assert_eq!(identity.name.to_string(), "client.alice");
        assert_eq!(identity.caps.to_string(), "osd rw pool=vms");
        assert_eq!(identity.generation, 3);
        assert_eq!(identity.not_before, NOW.before(CLOCK_SKEW));
        assert_eq!(identity.not_after, NOW.after(DAY));
        assert_eq!(identity.serial.to_string().len(), 32);
    }

    #[test]
    fn a_request_gets_what_is_granted_and_not_what_it_asks() {
        let authority = Authority::create(ClusterId::random(), NOW, DAY * 3650).unwrap();
        let (der, _key) =
            SigningRequest::make(authority.cluster(), &"client.eve".parse().unwrap(), &Caps::all()).unwrap();
        let request = SigningRequest::read(&der).unwrap();
        assert_eq!(request.name().to_string(), "client.eve");
        assert_eq!(request.caps(), &Caps::all());
        let certificate = authority.sign(&request, &grant("client.eve"), NOW, DAY).unwrap();
        assert_eq!(Identity::from_der(&certificate).unwrap().caps.to_string(), "osd rw pool=vms");
    }

    #[test]
    fn an_authority_opens_again_and_signs_only_for_its_cluster() {
        let first = Authority::create(ClusterId::random(), NOW, DAY * 3650).unwrap();
        let again = Authority::open(first.cluster(), first.keypair().clone()).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let (der, _) = SigningRequest::make(ClusterId([1; 16]), &"osd.1".parse().unwrap(), &Caps::default()).unwrap();
        let request = SigningRequest::read(&der).unwrap();
        assert!(matches!(again.sign(&request, &grant("osd.1"), NOW, DAY), Err(IdentityError::Request(_))));
        let leaf = first.issue(&grant("osd.1"), NOW, DAY).unwrap();
        assert!(Authority::open(first.cluster(), leaf).is_err(), "a member's certificate is no authority's");
    }

    #[test]
    fn a_tampered_request_is_refused() {
        let (mut der, _) =
            SigningRequest::make(ClusterId([1; 16]), &"client.al".parse().unwrap(), &Caps::default()).unwrap();
        let at = der.windows(9).position(|w| w == b"client.al").unwrap();
        der[at + 7] = b'b';
        assert!(SigningRequest::read(&der).is_err());
        assert!(SigningRequest::read(&[]).is_err());
        assert!(SigningRequest::read(&vec![0x30; MAX_REQUEST + 1]).is_err());
    }
}
