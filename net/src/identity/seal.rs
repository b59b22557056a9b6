//! Sealing: a secret that is kept where many can read (a replicated log, its snapshots, backups) is encrypted with a key
//! that is kept elsewhere. Who has a copy of the one without the other has nothing.
//!
//! Form: magic `NCSL`, version 1, 12 bytes of nonce, then the secret under AES-256-GCM with its tag. What the secret is
//! for is part of what is authenticated, so a sealed thing cannot be passed off as another. Where the key is kept, and
//! against whom that helps, is told in `docs/operating/identities.md`.

use std::fmt;

use zeroize::Zeroizing;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const MAGIC: &[u8; 4] = b"NCSL";
const VERSION: u8 = 1;
const HEAD: usize = MAGIC.len() + 1 + NONCE_LEN;

/// What goes wrong with sealed things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not one, or of a later release.
    #[error("these bytes are not sealed in a way this release knows")]
    Form,
    /// Another key, another purpose, or damage: cannot be told apart.
    #[error("it does not open with this seal key: the key is of another cluster, or the bytes are damaged")]
    Closed,
    /// A key of the wrong length.
    #[error("a seal key is 64 hexadecimal digits")]
    Key,
}

/// The key. Wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(not shown)")
    }
}

impl SealKey {
    /// A new one.
    #[must_use]
    pub fn random() -> SealKey {
        SealKey(Zeroizing::new(rand::random()))
    }

    /// As it is kept in a file.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(super::join::hex(&*self.0))
    }

    /// Out of a file.
    pub fn read(text: &str) -> Result<SealKey, SealError> {
        super::join::unhex(text.trim()).map(|key| SealKey(Zeroizing::new(key))).ok_or(SealError::Key)
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, &*self.0).map(LessSafeKey::new).map_err(|_| SealError::Key)
    }

    /// Seals a secret for a purpose.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        // A random nonce: a cluster seals a handful of things in its life.
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut body = secret.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| SealError::Closed)?;
        Ok([&MAGIC[..], &[VERSION], &nonce, &body].concat())
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(SealError::Form)?;
        let nonce =
            head.strip_prefix(&MAGIC[..]).and_then(|rest| rest.strip_prefix(&[VERSION])).ok_or(SealError::Form)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()?
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_| SealError::Closed)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_its_key_and_purpose_only() {
        let key = SealKey::random();
        let sealed = key.seal("authority", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(*key.open("authority", &sealed).unwrap(), b"secret");
        assert_eq!(key.open("backup", &sealed).unwrap_err(), SealError::Closed);
        assert_eq!(SealKey::random().open("authority", &sealed).unwrap_err(), SealError::Closed);
        let again = SealKey::read(&format!("{}\n", *key.reveal())).unwrap();
        assert_eq!(*again.open("authority", &sealed).unwrap(), b"secret");
        assert_ne!(key.seal("authority", b"secret").unwrap(), sealed, "no nonce twice");
        assert!(!format!("{key:?}").contains(&key.reveal()[..8]));
    }

    #[test]
    fn damage_and_foreign_bytes_are_refused() {
        let key = SealKey::random();
        let sealed = key.seal("authority", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(key.open("authority", &bad).is_err(), "byte {at}");
            assert!(key.open("authority", &sealed[..at]).is_err(), "cut at {at}");
        }
        for text in ["", "ab", "+f"] {
            assert_eq!(SealKey::read(text).unwrap_err(), SealError::Key);
        }
    }

    #[test]
    fn bytes_of_version_1_open() {
        let key = SealKey::read(&"07".repeat(32)).unwrap();
        let sealed: &[u8] = include_bytes!("../../../fixtures/net/v1-sealed.bin");
        assert_eq!(*key.open("fixture", sealed).unwrap(), b"mother of pearl");
    }
}
