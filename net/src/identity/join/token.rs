//! What newcomers are let in by: tokens and whom they are for, ids of tokens and requests, and their text forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::JoinError;
use crate::identity::authority::SigningRequest;
use crate::identity::{IdentityError, Kind, Name};

/// Whom a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// This name.
    Name(Name),
    /// Any id of this kind, by its word.
    AnyOf(KindWord),
}

/// A kind by its word, for storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindWord(String);

impl From<Kind> for KindWord {
    fn from(kind: Kind) -> KindWord {
        KindWord(kind.word().to_owned())
    }
}

impl Whom {
    pub(super) fn admits(&self, name: &Name) -> bool {
        match self {
            Whom::Name(one) => one == name,
            Whom::AnyOf(kind) => kind.0 == name.kind().word(),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Name(name) => write!(f, "{name}"),
            Whom::AnyOf(kind) => write!(f, "{}.*", kind.0),
        }
    }
}

impl Whom {
    /// What sort of thing it lets in.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Whom::Name(name) => Some(name.kind()),
            Whom::AnyOf(word) => Kind::ALL.into_iter().find(|kind| kind.word() == word.0),
        }
    }
}

impl FromStr for Whom {
    type Err = IdentityError;

    /// `osd.3`, or `osd.*` for any of a kind.
    fn from_str(text: &str) -> Result<Whom, IdentityError> {
        let any = text.strip_suffix(".*").and_then(|word| Kind::ALL.into_iter().find(|kind| kind.word() == word));
        match any {
            Some(kind) => Ok(Whom::AnyOf(kind.into())),
            None => text.parse().map(Whom::Name),
        }
    }
}

macro_rules! short_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<$name, Self::Err> {
                u64::from_str_radix(text, 16).map($name)
            }
        }
    };
}

short_id!(
    /// Names a token in listings; no secret.
    TokenId
);
short_id!(
    /// Names a signing request: the start of its key's fingerprint, so that asking twice is asking once.
    RequestId
);

impl RequestId {
    /// The id of a request.
    #[must_use]
    pub fn of(request: &SigningRequest) -> RequestId {
        let print = request.fingerprint();
        RequestId(u64::from_be_bytes([print[0], print[1], print[2], print[3], print[4], print[5], print[6], print[7]]))
    }
}

/// A token as it is handed to a newcomer: `nacre-join-1.ID.SECRET.AUTHORITY`, all in hex.
#[derive(Clone)]
pub struct Token {
    /// Which one.
    pub id: TokenId,
    pub(super) secret: Zeroizing<[u8; 16]>,
    /// BLAKE3 of the authority's certificate.
    pub authority: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret not shown)", self.id)
    }
}

const TOKEN_PREFIX: &str = "nacre-join-1";

/// Bytes as they are printed.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Bytes of a known number out of their print.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0u8; N];
    if text.len() != N * 2 {
        return None;
    }
    // Digit by digit: the standard library would take a sign for one.
    let mut digits = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()));
    for byte in &mut out {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(out)
}

impl Token {
    /// A new one, for a cluster of this authority.
    pub(super) fn draw(authority: &[u8]) -> Token {
        let (id, secret) = (TokenId(rand::random()), Zeroizing::new(rand::random()));
        Token { id, secret, authority: authority_fingerprint(authority) }
    }

    /// The text to hand over. A secret: whoever has it can join.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{TOKEN_PREFIX}.{}.{}.{}", self.id, hex(&*self.secret), hex(&self.authority)))
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *blake3::keyed_hash(blake3::hash(TOKEN_PREFIX.as_bytes()).as_bytes(), &*self.secret).as_bytes()
    }
}

impl FromStr for Token {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Token, JoinError> {
        let mut parts = text.trim().split('.');
        let mut part = || parts.next().ok_or(JoinError::NotAToken);
        let (prefix, id, secret, authority) = (part()?, part()?, part()?, part()?);
        if prefix != TOKEN_PREFIX || parts.next().is_some() {
            return Err(JoinError::NotAToken);
        }
        Ok(Token {
            id: TokenId(u64::from_be_bytes(unhex(id).ok_or(JoinError::NotAToken)?)),
            secret: Zeroizing::new(unhex(secret).ok_or(JoinError::NotAToken)?),
            authority: unhex(authority).ok_or(JoinError::NotAToken)?,
        })
    }
}

/// The fingerprint of an authority, as tokens carry it.
#[must_use]
pub fn authority_fingerprint(certificate: &[u8]) -> [u8; 32] {
    *blake3::hash(certificate).as_bytes()
}
