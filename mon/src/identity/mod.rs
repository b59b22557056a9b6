//! Who belongs to the cluster, as part of the replicated state: the authority (its key sealed) and the desk of
//! [`nacre_net::identity::join`]. [`wire`]: its form in the log and in snapshots. [`office`]: what the leader does
//! between a call and an entry: reads the state, draws random numbers, signs.
//!
//! Invariants: applying reads no clock and no randomness; every certificate that was handed out after the cluster's birth
//! is on record here before it is handed out; one authority signs, and it was believed by every member before it did,
//! unless an operator would not wait.
//!
//! From one authority to another it is three steps. **Begun**: the next one is believed besides. **Switched**: it signs,
//! and the former one is still believed. **Done**: the former one is not. Who is believed stands in the cluster map from
//! the first step on; members that see it there renew at once and say so.

pub mod office;
pub mod wire;

use nacre_net::identity::join::{self, Desk, Held, Member};
use nacre_net::identity::{Identity, IdentityError, Name};

/// The authority as the state keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// Its certificate in DER.
    pub certificate: Vec<u8>,
    /// Its key, sealed.
    pub sealed: Vec<u8>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// The authority; none until the cluster's birth was applied.
    pub authority: Option<AuthorityRecord>,
    /// The authority that is to sign next, while it is only believed.
    pub next: Option<AuthorityRecord>,
    /// The certificate of the one that signed before, while it is believed.
    pub former: Option<Vec<u8>>,
    /// Members, tokens, requests.
    pub desk: Desk,
    /// Counts changes.
    pub changes: u64,
}

/// What one entry changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The authority and the first members.
    Born(AuthorityRecord, Vec<(Name, Member)>),
    /// The next authority is made: believed from now on.
    NextMade(AuthorityRecord),
    /// The next authority, of this fingerprint, signs.
    Switched([u8; 32]),
    /// The former authority, of this fingerprint, is believed no more.
    Retired([u8; 32]),
    /// The next authority, of this fingerprint, is not to be.
    Abandoned([u8; 32]),
    /// Anything else.
    Desk(join::Change),
}

impl Change {
    /// Whether it is about authorities, of which the map tells.
    pub fn is_of_authorities(&self) -> bool {
        !matches!(self, Change::Desk(_) | Change::Born(..))
    }
}

impl AuthorityRecord {
    /// By which it is named.
    pub fn fingerprint(&self) -> [u8; 32] {
        join::authority_fingerprint(&self.certificate)
    }
}

impl Identities {
    /// Applies a change. Gives a line for the cluster log, if it is worth one, and the certificates that are void.
    pub fn apply(&mut self, change: &Change) -> (Option<String>, Vec<Held>) {
        self.changes += 1;
        match change {
            Change::Born(..) if self.authority.is_some() => (None, Vec::new()),
            Change::Born(authority, members) => {
                self.authority = Some(authority.clone());
                self.desk.members = members.iter().cloned().collect();
                (
                    Some(format!("the monitors keep the authority; {} members were made with it", members.len())),
                    Vec::new(),
                )
            }
            Change::Desk(change) => (line(change), self.desk.apply(change)),
            rotation => (self.rotate(rotation), Vec::new()),
        }
    }

    /// A step from one authority to another. One that does not fit does nothing.
    fn rotate(&mut self, change: &Change) -> Option<String> {
        let is_next = |print: &[u8; 32], next: &Option<AuthorityRecord>| {
            next.as_ref().is_some_and(|next| next.fingerprint() == *print)
        };
        Some(match change {
            Change::NextMade(next) if self.next.is_none() && self.former.is_none() && self.authority.is_some() => {
                self.next = Some(next.clone());
                format!("authority {} is made and believed; it does not sign yet", join::hex(&next.fingerprint()))
            }
            Change::Switched(print) if is_next(print, &self.next) => {
                self.former = self.authority.take().map(|record| record.certificate);
                self.authority = self.next.take();
                self.desk.switched();
                format!("authority {} signs", join::hex(print))
            }
            Change::Retired(print) if self.former.as_deref().map(join::authority_fingerprint) == Some(*print) => {
                self.former = None;
                format!("authority {} is believed no more", join::hex(print))
            }
            Change::Abandoned(print) if is_next(print, &self.next) => {
                self.next = None;
                format!("authority {} is abandoned before it signed", join::hex(print))
            }
            _ => return None,
        })
    }

    /// Certificates of the authorities that are believed, the one that signs first.
    pub fn trusted(&self) -> Vec<Vec<u8>> {
        let certificate = |record: &AuthorityRecord| record.certificate.clone();
        let signing = self.authority.as_ref().map(certificate);
        signing.into_iter().chain(self.next.as_ref().map(certificate)).chain(self.former.clone()).collect()
    }
}

/// What the audit channel says of a change.
fn line(change: &join::Change) -> Option<String> {
    use join::Change as C;
    Some(match change {
        C::TokenMade { id, record } => {
            format!(
                "join token {id} made for {} with \"{}\"; `nacre cert list` says how long it is good",
                record.whom, record.caps
            )
        }
        C::TokenDropped(id) => format!("join token {id} dropped"),
        C::TokenUsed { id, name, issued, .. } => {
            format!("{name} joined with token {id}, certificate {}", join::hex(&issued.serial))
        }
        C::Asked { id, record } => format!("{} asks to join, signing request {id}", record.name),
        C::Approved { id, member, issued } => {
            format!("signing request {id} approved with \"{}\", certificate {}", member.caps, join::hex(&issued.serial))
        }
        C::Denied { id, why, .. } => format!("signing request {id} denied: {why}"),
        C::MemberSet { name, member } => format!("{name} now has \"{}\"", member.caps),
        C::Renewed { name, issued, .. } => format!("{name} renewed, certificate {}", join::hex(&issued.serial)),
        C::Revoked { name, why, .. } => format!("{name} revoked: {why}"),
        C::Swept(_) => return None,
    })
}

/// A member as its certificate states it.
pub fn member_of(certificate: &[u8]) -> Result<(Name, Member), IdentityError> {
    let says = Identity::from_der(certificate)?;
    let held = Held {
        // The first members' keys were made with them; nobody compared a fingerprint.
        fingerprint: [0; 32],
        serial: says.serial.0.to_vec(),
        at: says.not_before,
        not_after: says.not_after,
        former: false,
    };
    Ok((says.name, Member { held: vec![held], ..Member::new(says.caps, says.generation) }))
}
