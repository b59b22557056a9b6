//! What the desk keeps, and the changes to it: plain data.

use serde::{Deserialize, Serialize};

use super::{RequestId, TokenId, Whom};
use crate::identity::{Caps, Identity, IdentityError, Name, UnixTime};

/// A token as the desk keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Hash of the secret.
    pub hash: [u8; 32],
    /// Whom it lets in.
    pub whom: Whom,
    /// With what capabilities.
    pub caps: Caps,
    /// Until when.
    pub expires: UnixTime,
    /// By which key it was used, and what that got.
    pub used: Option<Issued>,
}

/// A certificate that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Fingerprint of the key.
    pub fingerprint: [u8; 32],
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its serial number, as it is revoked by.
    pub serial: Vec<u8>,
    /// When.
    pub at: UnixTime,
    /// When it ends by itself.
    pub not_after: UnixTime,
}

impl Issued {
    /// What is known of a certificate that was just signed.
    pub fn of(certificate: Vec<u8>, fingerprint: [u8; 32], at: UnixTime) -> Result<Issued, IdentityError> {
        let says = Identity::from_der(&certificate)?;
        Ok(Issued { fingerprint, certificate, serial: says.serial.0.into_vec(), at, not_after: says.not_after })
    }

    pub(super) fn held(&self) -> Held {
        let Issued { fingerprint, serial, at, not_after, .. } = self;
        Held { fingerprint: *fingerprint, serial: serial.clone(), at: *at, not_after: *not_after, former: false }
    }
}

/// A certificate of a member that has not ended yet. Without its bytes: those are the member's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Fingerprint of the key.
    pub fingerprint: [u8; 32],
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When it was signed.
    pub at: UnixTime,
    /// When it ends by itself.
    pub not_after: UnixTime,
    /// Whether the authority before the one that signs has signed it.
    pub former: bool,
}

/// A name that is no longer believed, until its last certificate would have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// By whom.
    pub by: Name,
    /// Why.
    pub why: String,
    /// When.
    pub at: UnixTime,
    /// Until when this must be remembered.
    pub until: UnixTime,
}

/// What became of a signing request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestState {
    /// An operator must decide.
    Waiting,
    /// Granted.
    Approved(Issued),
    /// Refused.
    Denied {
        /// By whom.
        by: Name,
        /// Why.
        why: String,
        /// When.
        at: UnixTime,
    },
}

/// A signing request as the desk keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request in DER.
    pub request: Vec<u8>,
    /// The name it asks for.
    pub name: Name,
    /// The capabilities it asks for.
    pub caps: Caps,
    /// Fingerprint of its key.
    pub fingerprint: [u8; 32],
    /// When it came.
    pub at: UnixTime,
    /// What became of it.
    pub state: RequestState,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What its certificates say it may do.
    pub caps: Caps,
    /// The edition of its certificates.
    pub generation: u64,
    /// Those of its certificates that have not ended, oldest first.
    pub held: Vec<Held>,
    /// If it was revoked and has not joined anew.
    pub gone: Option<Gone>,
    /// Fingerprints of the authorities it believes, as far as it has said.
    pub trusts: Vec<[u8; 32]>,
}

impl Member {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new(caps: Caps, generation: u64) -> Member {
        Member { caps, generation, held: Vec::new(), gone: None, trusts: Vec::new() }
    }
}

/// A change to the desk, to be agreed on and then applied. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A token was made.
    TokenMade {
        /// Which.
        id: TokenId,
        /// What is kept of it.
        record: TokenRecord,
    },
    /// A token is no longer good.
    TokenDropped(TokenId),
    /// A token was used.
    TokenUsed {
        /// Which.
        id: TokenId,
        /// By whom.
        name: Name,
        /// What the member is from now on.
        member: Member,
        /// What it got.
        issued: Issued,
    },
    /// A request came in.
    Asked {
        /// Which.
        id: RequestId,
        /// The request.
        record: RequestRecord,
    },
    /// A request was granted.
    Approved {
        /// Which.
        id: RequestId,
        /// What the member is from now on.
        member: Member,
        /// What it got.
        issued: Issued,
    },
    /// A request was refused.
    Denied {
        /// Which.
        id: RequestId,
        /// By whom.
        by: Name,
        /// Why.
        why: String,
        /// When.
        at: UnixTime,
    },
    /// A member has this record from now on: made with the cluster, or its capabilities changed.
    MemberSet {
        /// Who.
        name: Name,
        /// What.
        member: Member,
    },
    /// A member got its next certificate.
    Renewed {
        /// Who.
        name: Name,
        /// The edition the certificate says; of another than the member's the change does nothing.
        generation: u64,
        /// What it got.
        issued: Issued,
        /// Fingerprints of the authorities it believes.
        trusts: Vec<[u8; 32]>,
    },
    /// A member is no longer believed, and may come back only by joining anew.
    Revoked {
        /// Who.
        name: Name,
        /// By whom.
        by: Name,
        /// Why.
        why: String,
        /// When.
        at: UnixTime,
    },
    /// Time went by: forget what is over.
    Swept(UnixTime),
}
