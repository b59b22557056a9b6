//! Who belongs to the cluster, as part of the replicated state: the authority (its key sealed) and the desk of
//! [`nacre_net::identity::join`]. [`wire`]: its form in the log and in snapshots. [`office`]: what the leader does
//! between a call and an entry: reads the state, draws random numbers, signs.
//!
//! Invariants: applying reads no clock and no randomness; the authority is set once; every certificate that was handed
//! out after the cluster's birth is on record here before it is handed out.

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
    /// Anything else.
    Desk(join::Change),
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
        }
    }
}

/// What the audit channel says of a change.
fn line(change: &join::Change) -> Option<String> {
    use join::Change as C;
    Some(match change {
        C::TokenMade { id, record } => {
            format!(
                "join token {id} made for {} with \"{}\", good until {}",
                record.whom, record.caps, record.expires.0
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
    };
    Ok((says.name, Member { held: vec![held], ..Member::new(says.caps, says.generation) }))
}
