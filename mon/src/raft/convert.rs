//! Between openraft's types and their messages. What comes from a peer or a disk may lack fields: that is an error
//! here and never a default, since a missing log id and a log id of zero mean different things.

use std::collections::{BTreeMap, BTreeSet};

use nacre_mon_api::v1;
use openraft::EntryPayload;

use super::{Ballot, Entry, LeaderId, LogId, Member, Membership, Request, SnapshotMeta, StoredMembership};

/// A message that cannot be what it claims to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConvertError {
    /// A field without which it has no meaning.
    #[error("{message} lacks {field}")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Voters who are not members.
    #[error("membership is inconsistent: {0}")]
    Membership(String),
}

fn need<T>(value: Option<T>, message: &'static str, field: &'static str) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { message, field })
}

/// To the message.
pub fn leader_to(leader: &LeaderId) -> v1::LeaderId {
    v1::LeaderId { term: leader.term, node: leader.node_id }
}

/// From the message.
pub fn leader_from(leader: &v1::LeaderId) -> LeaderId {
    LeaderId { term: leader.term, node_id: leader.node }
}

/// To the message.
pub fn ballot_to(ballot: &Ballot) -> v1::Ballot {
    v1::Ballot { leader: Some(leader_to(&ballot.leader_id)), committed: ballot.committed }
}

/// From the message.
pub fn ballot_from(ballot: Option<v1::Ballot>) -> Result<Ballot, ConvertError> {
    let ballot = need(ballot, "message", "ballot")?;
    let leader = need(ballot.leader, "ballot", "leader")?;
    Ok(Ballot { leader_id: leader_from(&leader), committed: ballot.committed })
}

/// To the message.
pub fn log_id_to(id: &LogId) -> v1::LogId {
    v1::LogId { leader: Some(leader_to(&id.leader_id)), index: id.index }
}

/// From the message; absent stays absent.
pub fn log_id_from(id: Option<v1::LogId>) -> Result<Option<LogId>, ConvertError> {
    id.map(|id| {
        let leader = need(id.leader, "log id", "leader")?;
        Ok(LogId { leader_id: leader_from(&leader), index: id.index })
    })
    .transpose()
}

/// To the message.
pub fn membership_to(membership: &Membership) -> v1::Membership {
    v1::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| v1::NodeSet { nodes: set.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, member)| v1::Member { node: *node, mon: member.mon, address: member.address.clone() })
            .collect(),
    }
}

/// From the message.
pub fn membership_from(membership: v1::Membership) -> Result<Membership, ConvertError> {
    let voters: Vec<BTreeSet<u64>> = membership.voters.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> = membership
        .members
        .into_iter()
        .map(|member| (member.node, Member { mon: member.mon, address: member.address }))
        .collect();
    if voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, members).map_err(|error| ConvertError::Membership(error.to_string()))
}

/// To the message.
pub fn stored_membership_to(stored: &StoredMembership) -> v1::StoredMembership {
    v1::StoredMembership {
        id: stored.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

/// From the message.
pub fn stored_membership_from(stored: Option<v1::StoredMembership>) -> Result<StoredMembership, ConvertError> {
    let stored = need(stored, "message", "membership")?;
    let membership = need(stored.membership, "stored membership", "membership")?;
    Ok(StoredMembership::new(log_id_from(stored.id)?, membership_from(membership)?))
}

/// To the message.
pub fn request_to(request: &Request) -> v1::Request {
    v1::Request {
        session: request.session,
        sequence: request.sequence,
        at_ms: request.at_ms,
        who: request.who.clone(),
        command: request.command.clone(),
    }
}

/// From the message.
pub fn request_from(request: v1::Request) -> Request {
    Request {
        session: request.session,
        sequence: request.sequence,
        at_ms: request.at_ms,
        who: request.who,
        command: request.command,
    }
}

/// To the message.
pub fn entry_to(entry: &Entry) -> v1::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => v1::entry::Payload::Blank(true),
        EntryPayload::Normal(request) => v1::entry::Payload::Request(request_to(request)),
        EntryPayload::Membership(membership) => v1::entry::Payload::Membership(membership_to(membership)),
    };
    v1::Entry { id: Some(log_id_to(&entry.log_id)), payload: Some(payload) }
}

/// From the message.
pub fn entry_from(entry: v1::Entry) -> Result<Entry, ConvertError> {
    let log_id = need(log_id_from(entry.id)?, "entry", "log id")?;
    let payload = match need(entry.payload, "entry", "payload")? {
        v1::entry::Payload::Blank(_) => EntryPayload::Blank,
        v1::entry::Payload::Request(request) => EntryPayload::Normal(request_from(request)),
        v1::entry::Payload::Membership(membership) => EntryPayload::Membership(membership_from(membership)?),
    };
    Ok(Entry { log_id, payload })
}

/// To the message.
pub fn meta_to(meta: &SnapshotMeta) -> v1::SnapshotMeta {
    v1::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_to),
        membership: Some(stored_membership_to(&meta.last_membership)),
    }
}

/// From the message.
pub fn meta_from(meta: Option<v1::SnapshotMeta>) -> Result<SnapshotMeta, ConvertError> {
    let meta = need(meta, "message", "snapshot meta")?;
    Ok(SnapshotMeta { last_log_id: log_id_from(meta.last)?, last_membership: stored_membership_from(meta.membership)? })
}
