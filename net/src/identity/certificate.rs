//! Reading an [`Identity`] out of a certificate. Whether the certificate is to be believed (signature, dates,
//! revocation) is judged in [`crate::tls`]; here it is only taken apart, without panics, whatever the bytes.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{Caps, ClusterId, IdentityError, Name, UnixTime};

/// The scheme of the URI that carries cluster, name and generation.
pub(super) const NAME_SCHEME: &str = "nacre://";
/// The scheme of the URI that carries the capabilities, percent-encoded.
pub(super) const CAPS_SCHEME: &str = "nacre-caps:";

/// The serial number of a certificate: random, 16 bytes. Printed in hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub Box<[u8]>);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who a peer is, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub caps: Caps,
    /// Which edition of this name's certificates: revoking a name asks for a higher one.
    pub generation: u64,
    /// The number of this one certificate.
    pub serial: Serial,
    /// Valid from.
    pub not_before: UnixTime,
    /// Valid until.
    pub not_after: UnixTime,
    /// Whose signature it bears: the authority's fingerprint, written here by whoever checked the signature
    /// ([`crate::tls::Trust`]). What the certificate itself says about its signer proves nothing and is not read.
    pub signer: Option<[u8; 32]>,
}

impl Identity {
    /// Takes a certificate apart.
    pub fn from_der(der: &[u8]) -> Result<Identity, IdentityError> {
        let (rest, cert) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate("bytes follow behind its end"));
        }
        let names = cert
            .subject_alternative_name()
            .map_err(|_| IdentityError::Certificate("its alternative names cannot be read"))?
            .ok_or(IdentityError::Certificate("it has no alternative names, so it was not made by a cluster"))?;
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let claim = Claim::from_uris(uris)?;
        let time = |t: i64| UnixTime(u64::try_from(t).unwrap_or(0));
        Ok(Identity {
            cluster: claim.cluster,
            name: claim.name,
            caps: claim.caps,
            generation: claim.generation,
            serial: Serial(cert.raw_serial().into()),
            not_before: time(cert.validity().not_before.timestamp()),
            not_after: time(cert.validity().not_after.timestamp()),
            signer: None,
        })
    }
}

/// What the alternative names of a certificate or of a signing request state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) cluster: ClusterId,
    pub(super) name: Name,
    pub(super) generation: u64,
    pub(super) caps: Caps,
}

impl Claim {
    /// Reads the URIs. Exactly one name, at most one text of capabilities, nothing of ours that is not understood.
    pub(super) fn from_uris<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Claim, IdentityError> {
        let (mut who, mut caps) = (None, None);
        for uri in uris {
            if let Some(text) = uri.strip_prefix(CAPS_SCHEME) {
                if caps.replace(percent_decode(text)?.parse()?).is_some() {
                    return Err(IdentityError::Certificate("it states capabilities twice"));
                }
            } else if let Some(text) = uri.strip_prefix(NAME_SCHEME) {
                let shape = IdentityError::Certificate("its name is not nacre://CLUSTER/NAME?generation=N");
                let (cluster, rest) = text.split_once('/').ok_or(shape.clone())?;
                let (name, generation) = rest.split_once("?generation=").ok_or(shape.clone())?;
                let generation = generation.parse().map_err(|_| shape)?;
                if who.replace((cluster.parse()?, name.parse()?, generation)).is_some() {
                    return Err(IdentityError::Certificate("it bears two names"));
                }
            }
        }
        let (cluster, name, generation) = who.ok_or(IdentityError::Certificate("it bears no name of a cluster"))?;
        Ok(Claim { cluster, name, generation, caps: caps.unwrap_or_default() })
    }

    /// The URIs that state it.
    pub(super) fn uris(&self) -> [String; 2] {
        [
            format!("{NAME_SCHEME}{}/{}?generation={}", self.cluster, self.name, self.generation),
            format!("{CAPS_SCHEME}{}", percent_encode(&self.caps.to_string())),
        ]
    }
}

fn percent_encode(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn percent_decode(text: &str) -> Result<String, IdentityError> {
    let bad = IdentityError::Certificate("its capabilities are not percent-encoded text");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(bad) };
        out.push(u8::try_from(high * 16 + low).map_err(|_| bad.clone())?);
    }
    String::from_utf8(out).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_claim_reads_as_it_prints(generation: u64, id in "[a-z0-9]{1,9}", path in "/[a-zäöü%&]{1,9}") {
            let claim = Claim {
                cluster: ClusterId([7; 16]),
                name: format!("client.{id}").parse().unwrap(),
                generation,
                caps: format!("mds rw path={path}; osd r pool=a*").parse().unwrap(),
            };
            let uris = claim.uris();
            prop_assert!(uris.iter().all(|u| u.is_ascii()));
            prop_assert_eq!(Claim::from_uris(uris.iter().map(String::as_str)).unwrap(), claim);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Identity::from_der(&bytes);
        }
    }

    #[test]
    fn a_claim_bears_exactly_one_name() {
        let one = "nacre://07070707-0707-0707-0707-070707070707/osd.1?generation=0";
        let two = "nacre://07070707-0707-0707-0707-070707070707/osd.2?generation=0";
        assert!(Claim::from_uris([one].into_iter()).is_ok());
        assert!(Claim::from_uris([one, two].into_iter()).is_err());
        assert!(Claim::from_uris(["https://example.net/"].into_iter()).is_err());
        assert!(Claim::from_uris([one, "nacre-caps:%zz"].into_iter()).is_err());
        assert!(Claim::from_uris([one, "nacre-caps:", "nacre-caps:"].into_iter()).is_err());
    }
}
