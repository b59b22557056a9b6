//! How a process that has no certificate yet gets its first one, how members renew theirs, and how a name is revoked.
//! A value that is told the time. Its verbs read the state and answer with a [`Change`]; [`Desk::apply`] alone changes
//! it. The monitors agree on changes and keep them; the leader signs with [`super::Authority`] between the two steps,
//! because signatures are random and what is applied must not be.
//!
//! Two ways in, as a kubelet joins its cluster:
//! - **Token.** An administrator makes a one-time token for a name (or for any id of a kind). Whoever shows it, before
//!   it expires, is granted that name at once. The token also carries the fingerprint of the authority, so the newcomer
//!   knows that it speaks to the right cluster before it sends its secret.
//! - **Approval.** A newcomer sends a signing request. It waits until an administrator has compared the fingerprint of
//!   its key and approves or denies it.
//!
//! Invariants:
//! 1. A token is worth one key: shown again with the same key it gives the same certificate (the answer was lost), with
//!    any other key nothing.
//! 2. Secrets are not kept, only their hash.
//! 3. What strangers can make the desk remember is bounded: [`MAX_WAITING`] requests, each [`WAITING_FOR`] at most.
//! 4. Granting a name to a new key raises the name's generation; what was issued for it before is no longer believed.
//! 5. A renewal grants what the desk has on record, never what the request or the old certificate says.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::authority::SigningRequest;
use super::{Caps, Grant, Identity, IdentityError, Kind, Name, UnixTime};

/// How many requests may wait for an operator.
pub const MAX_WAITING: usize = 256;
/// How long one waits before it is forgotten.
pub const WAITING_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a used token or a decided request is remembered, so that a lost answer can be asked for again.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// The longest life of a token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What goes wrong at the desk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Text that is no token.
    #[error("this is not a join token; one is made by `nacre cert token NAME` and starts with nacre-join-1.")]
    NotAToken,
    /// Unknown, expired, used by another, or with a wrong secret: not told apart to strangers.
    #[error("the join token is not valid (any more); make a new one with `nacre cert token {name}`")]
    TokenInvalid {
        /// For whom it was shown.
        name: Name,
    },
    /// A token for something else.
    #[error("the join token is for {token}, not for {name}")]
    TokenForAnother {
        /// What it is for.
        token: Whom,
        /// Who showed it.
        name: Name,
    },
    /// Too many wait.
    #[error("{MAX_WAITING} signing requests wait already; decide some with `nacre cert list`, then ask again")]
    Full,
    /// No such request.
    #[error("there is no signing request {0}; `nacre cert list` shows what waits")]
    NoRequest(RequestId),
    /// Decided before.
    #[error("signing request {id} was {state} already")]
    Decided {
        /// Which.
        id: RequestId,
        /// How.
        state: &'static str,
    },
    /// A renewal by someone the desk does not know (any more).
    #[error("{0} is not known to this cluster; let it join anew")]
    Unknown(Name),
    /// A member asks for another's name.
    #[error("{who} cannot renew the certificate of {name}")]
    NotYours {
        /// Who asks.
        who: Name,
        /// For what.
        name: Name,
    },
}

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
    fn admits(&self, name: &Name) -> bool {
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
    secret: Zeroizing<[u8; 16]>,
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
    /// The text to hand over. A secret: whoever has it can join.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{TOKEN_PREFIX}.{}.{}.{}", self.id, hex(&*self.secret), hex(&self.authority)))
    }

    fn hash(&self) -> [u8; 32] {
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

    fn held(&self) -> Held {
        let Issued { fingerprint, serial, at, not_after, .. } = self;
        Held { fingerprint: *fingerprint, serial: serial.clone(), at: *at, not_after: *not_after }
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
}

impl Member {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new(caps: Caps, generation: u64) -> Member {
        Member { caps, generation, held: Vec::new(), gone: None }
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

/// What the leader must sign before the change can be made.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// The request.
    pub request: SigningRequest,
    /// What the certificate shall say.
    pub grant: Grant,
    key: Signed,
}

#[derive(Clone, Debug)]
enum Signed {
    Token(TokenId),
    Request(RequestId),
}

impl ToSign {
    /// The change, with the certificate that [`super::Authority::sign`] gave.
    pub fn signed(self, certificate: Vec<u8>, at: UnixTime) -> Result<Change, IdentityError> {
        let issued = Issued::of(certificate, self.request.fingerprint(), at)?;
        let member = Member::new(self.grant.caps, self.grant.generation);
        Ok(match self.key {
            Signed::Token(id) => Change::TokenUsed { id, name: self.grant.name, member, issued },
            Signed::Request(id) => Change::Approved { id, member, issued },
        })
    }
}

/// What a newcomer is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Sign this, make the change, then hand out the certificate.
    Sign(Box<ToSign>),
    /// This certificate was made before.
    Certificate(Vec<u8>),
    /// Make this change (if any) and let it ask again later.
    Wait(RequestId, Option<Box<Change>>),
    /// An operator said no.
    Denied(String),
}

/// The desk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desk {
    /// Members by name.
    pub members: BTreeMap<Name, Member>,
    /// Tokens.
    pub tokens: BTreeMap<TokenId, TokenRecord>,
    /// Signing requests.
    pub requests: BTreeMap<RequestId, RequestRecord>,
}

impl Desk {
    /// A new token. The secret is in the first part only.
    #[must_use]
    pub fn make_token(
        &self,
        whom: Whom,
        caps: Caps,
        authority: &[u8],
        now: UnixTime,
        life: Duration,
    ) -> (Token, Change) {
        let token = Token {
            id: TokenId(rand::random()),
            secret: Zeroizing::new(rand::random()),
            authority: authority_fingerprint(authority),
        };
        let expires = now.after(life.min(MAX_TOKEN_LIFE));
        let record = TokenRecord { hash: token.hash(), whom, caps, expires, used: None };
        let change = Change::TokenMade { id: token.id, record };
        (token, change)
    }

    /// A newcomer shows a token.
    pub fn redeem(&self, token: &Token, request: SigningRequest, now: UnixTime) -> Result<Answer, JoinError> {
        let invalid = || JoinError::TokenInvalid { name: request.name().clone() };
        let record = self.tokens.get(&token.id).ok_or_else(invalid)?;
        // blake3::Hash compares in constant time.
        if blake3::Hash::from_bytes(record.hash) != blake3::Hash::from_bytes(token.hash()) {
            return Err(invalid());
        }
        if let Some(used) = &record.used {
            let same = used.fingerprint == request.fingerprint();
            return if same { Ok(Answer::Certificate(used.certificate.clone())) } else { Err(invalid()) };
        }
        if now >= record.expires {
            return Err(invalid());
        }
        if !record.whom.admits(request.name()) {
            return Err(JoinError::TokenForAnother { token: record.whom.clone(), name: request.name().clone() });
        }
        let grant = self.grant_anew(request.name(), record.caps.clone());
        Ok(Answer::Sign(Box::new(ToSign { request, grant, key: Signed::Token(token.id) })))
    }

    /// A newcomer asks without a token, for the first time or again to hear what became of it.
    pub fn ask(&self, request: &SigningRequest, der: &[u8], now: UnixTime) -> Result<Answer, JoinError> {
        let id = RequestId::of(request);
        match self.requests.get(&id) {
            Some(record) if record.fingerprint != request.fingerprint() => Err(JoinError::Full),
            Some(RequestRecord { state: RequestState::Waiting, .. }) => Ok(Answer::Wait(id, None)),
            Some(RequestRecord { state: RequestState::Approved(issued), .. }) => {
                Ok(Answer::Certificate(issued.certificate.clone()))
            }
            Some(RequestRecord { state: RequestState::Denied { why, .. }, .. }) => Ok(Answer::Denied(why.clone())),
            None => {
                let waiting = self.requests.values().filter(|r| r.state == RequestState::Waiting).count();
                if waiting >= MAX_WAITING {
                    return Err(JoinError::Full);
                }
                let record = RequestRecord {
                    request: der.to_vec(),
                    name: request.name().clone(),
                    caps: request.caps().clone(),
                    fingerprint: request.fingerprint(),
                    at: now,
                    state: RequestState::Waiting,
                };
                Ok(Answer::Wait(id, Some(Box::new(Change::Asked { id, record }))))
            }
        }
    }

    /// An operator approves, with the capabilities asked for or with others.
    pub fn approve(&self, id: RequestId, caps: Option<Caps>) -> Result<ToSign, JoinError> {
        let record = self.waiting(id)?;
        let request = SigningRequest::read(&record.request).map_err(|_| JoinError::NoRequest(id))?;
        let grant = self.grant_anew(&record.name, caps.unwrap_or_else(|| record.caps.clone()));
        Ok(ToSign { request, grant, key: Signed::Request(id) })
    }

    /// An operator refuses.
    pub fn deny(&self, id: RequestId, by: Name, why: &str, now: UnixTime) -> Result<Change, JoinError> {
        self.waiting(id)?;
        Ok(Change::Denied { id, by, why: why.to_owned(), at: now })
    }

    /// A member renews: what its next certificate shall say. Nothing changes at the desk, so followers can sign too.
    pub fn renew(&self, who: &Identity, request: &SigningRequest) -> Result<Grant, JoinError> {
        if *request.name() != who.name {
            return Err(JoinError::NotYours { who: who.name.clone(), name: request.name().clone() });
        }
        match self.members.get(&who.name) {
            Some(member) if who.generation == member.generation && member.gone.is_none() => {
                Ok(Grant { name: who.name.clone(), caps: member.caps.clone(), generation: member.generation })
            }
            _ => Err(JoinError::Unknown(who.name.clone())),
        }
    }

    /// New capabilities for a member. Its certificates so far are void; it must join anew only if `rejoin`, otherwise
    /// they stay good until renewed (use that to grant more, never to take away).
    pub fn set_caps(&self, name: &Name, caps: Caps, rejoin: bool) -> Result<Change, JoinError> {
        let member = self.members.get(name).ok_or_else(|| JoinError::Unknown(name.clone()))?;
        let generation = member.generation.saturating_add(u64::from(rejoin));
        let member = Member { caps, generation, ..member.clone() };
        Ok(Change::MemberSet { name: name.clone(), member })
    }

    /// No certificate of this name is believed any more.
    pub fn revoke(&self, name: &Name, by: Name, why: &str, now: UnixTime) -> Result<Change, JoinError> {
        match self.members.get(name) {
            Some(Member { gone: None, .. }) => {
                Ok(Change::Revoked { name: name.clone(), by, why: why.to_owned(), at: now })
            }
            _ => Err(JoinError::Unknown(name.clone())),
        }
    }

    /// The least generation each name is believed at: goes into the map's [`super::Revocations`] when it changes.
    #[must_use]
    pub fn least_generation(&self, name: &Name) -> Option<u64> {
        self.members.get(name).map(|m| m.generation)
    }

    /// What to forget at `now`, if anything.
    #[must_use]
    pub fn sweep(&self, now: UnixTime) -> Option<Change> {
        let due = self.tokens.values().any(|t| !keep_token(t, now))
            || self.requests.values().any(|r| !keep_request(r, now))
            || self.members.values().any(|m| m.held.iter().any(|h| h.not_after <= now) || !keep_member(m, now));
        due.then_some(Change::Swept(now))
    }

    /// Makes a change. Total and deterministic: a change that no longer fits does nothing. Gives the certificates that
    /// are void because of it, which the map must name.
    #[must_use = "what is given must be revoked"]
    pub fn apply(&mut self, change: &Change) -> Vec<Held> {
        match change {
            Change::TokenMade { id, record } => {
                self.tokens.entry(*id).or_insert_with(|| record.clone());
            }
            Change::TokenDropped(id) => {
                self.tokens.remove(id);
            }
            Change::TokenUsed { id, name, member, issued } => {
                if let Some(record) = self.tokens.get_mut(id).filter(|r| r.used.is_none()) {
                    record.used = Some(issued.clone());
                    return self.enroll(name, member, Some(issued));
                }
            }
            Change::Asked { id, record } => {
                let waiting = self.requests.values().filter(|r| r.state == RequestState::Waiting).count();
                if waiting < MAX_WAITING {
                    self.requests.entry(*id).or_insert_with(|| record.clone());
                }
            }
            Change::Approved { id, member, issued } => {
                if let Some(record) = self.requests.get_mut(id).filter(|r| r.state == RequestState::Waiting) {
                    record.state = RequestState::Approved(issued.clone());
                    let name = record.name.clone();
                    return self.enroll(&name, member, Some(issued));
                }
            }
            Change::Denied { id, by, why, at } => {
                if let Some(record) = self.requests.get_mut(id).filter(|r| r.state == RequestState::Waiting) {
                    record.state = RequestState::Denied { by: by.clone(), why: why.clone(), at: *at };
                }
            }
            Change::MemberSet { name, member } => return self.enroll(name, member, None),
            Change::Renewed { name, generation, issued } => {
                let member = self.members.get_mut(name);
                if let Some(member) = member.filter(|m| m.generation == *generation && m.gone.is_none()) {
                    member.held.retain(|held| held.not_after > issued.at);
                    member.held.push(issued.held());
                }
            }
            Change::Revoked { name, by, why, at } => {
                if let Some(member) = self.members.get_mut(name).filter(|m| m.gone.is_none()) {
                    let until = member.held.iter().map(|held| held.not_after).max().unwrap_or(*at);
                    member.gone = Some(Gone { by: by.clone(), why: why.clone(), at: *at, until });
                    member.generation = member.generation.saturating_add(1);
                    return std::mem::take(&mut member.held);
                }
            }
            Change::Swept(now) => self.forget(*now),
        }
        Vec::new()
    }

    fn enroll(&mut self, name: &Name, member: &Member, issued: Option<&Issued>) -> Vec<Held> {
        let mut next = member.clone();
        let mut void = Vec::new();
        if let Some(before) = self.members.remove(name) {
            // A generation never goes back, also if two grants for one name were signed at the same time. What was
            // issued for an earlier one is void.
            next.generation = next.generation.max(before.generation);
            if next.generation == before.generation {
                next.held = before.held;
            } else {
                next.held.clear();
                void = before.held;
            }
        }
        next.held.extend(issued.map(Issued::held));
        self.members.insert(name.clone(), next);
        void
    }

    fn forget(&mut self, now: UnixTime) {
        self.tokens.retain(|_, t| keep_token(t, now));
        self.requests.retain(|_, r| keep_request(r, now));
        self.members.retain(|_, m| keep_member(m, now));
        self.members.values_mut().for_each(|m| m.held.retain(|held| held.not_after > now));
    }

    fn grant_anew(&self, name: &Name, caps: Caps) -> Grant {
        let generation = self.members.get(name).map_or(0, |m| m.generation.saturating_add(1));
        Grant { name: name.clone(), caps, generation }
    }

    fn waiting(&self, id: RequestId) -> Result<&RequestRecord, JoinError> {
        let record = self.requests.get(&id).ok_or(JoinError::NoRequest(id))?;
        match record.state {
            RequestState::Waiting => Ok(record),
            RequestState::Approved(_) => Err(JoinError::Decided { id, state: "approved" }),
            RequestState::Denied { .. } => Err(JoinError::Decided { id, state: "denied" }),
        }
    }
}

fn keep_token(token: &TokenRecord, now: UnixTime) -> bool {
    match &token.used {
        None => now < token.expires,
        Some(used) => now < used.at.after(REMEMBERED_FOR),
    }
}

fn keep_request(request: &RequestRecord, now: UnixTime) -> bool {
    match &request.state {
        RequestState::Waiting => now < request.at.after(WAITING_FOR),
        RequestState::Approved(issued) => now < issued.at.after(REMEMBERED_FOR),
        RequestState::Denied { at, .. } => now < at.after(REMEMBERED_FOR),
    }
}

fn keep_member(member: &Member, now: UnixTime) -> bool {
    member.gone.as_ref().is_none_or(|gone| now < gone.until)
}

#[cfg(test)]
#[path = "join_test.rs"]
mod tests;
