//! The types openraft is run with. Everything here is generic over [`Config`], so that the product (tokio) and the
//! simulation (a virtual clock in one thread) run the same code.

pub mod clock;
pub mod convert;
pub mod network;

use std::fmt;

use bytes::Bytes;
use openraft::{RaftTypeConfig, impls::TokioRuntime};

/// A member of the quorum: an incarnation of a monitor. A monitor that has lost its store comes back under a new one,
/// because the old one may have promised what nobody remembers.
pub type NodeId = u64;

/// A leader: term and node.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
/// A vote given or taken.
pub type Ballot = openraft::impls::Vote<LeaderId>;
/// A position in the log.
pub type LogId = openraft::LogId<LeaderId>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<Request, NodeId, Member>;
/// An entry of the log.
pub type Entry = openraft::Entry<LeaderId, Payload>;
/// Who votes, who learns.
pub type Membership = openraft::Membership<NodeId, Member>;
/// A membership and the entry that made it so.
pub type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, Member>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::storage::SnapshotMeta<LeaderId, NodeId, Member>;
/// A snapshot: the encoded state, small enough to be held in memory.
pub type Snapshot = openraft::storage::Snapshot<LeaderId, NodeId, Member, Bytes>;

/// Where a member is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The monitor's number, as in `mon.1`.
    pub mon: u64,
    /// `host:port` of its service.
    pub address: String,
}

/// One command in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Whose command it is. Chosen at random by each client.
    pub session: u64,
    /// Numbers the session's commands from 1; a repeated number is the same command sent again.
    pub sequence: u64,
    /// The leader's clock in milliseconds since 1970 when it took the command: replicas must not read their own.
    pub at_ms: u64,
    /// The identity that asked, for the audit log.
    pub who: String,
    /// The encoded command.
    pub command: Bytes,
}

impl Request {
    /// Whether a daemon asks by itself, rather than an operator or a program on someone's behalf.
    pub fn is_by_daemon(&self) -> bool {
        !self.who.starts_with("client.")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:016x} command {} of {}", self.session, self.sequence, self.who)
    }
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0, or the number of a `proto::status::Code`.
    pub code: u16,
    /// What was done, or why not.
    pub text: String,
    /// The map's epoch after it.
    pub epoch: u64,
    /// What the verb gives back, encoded.
    pub detail: Bytes,
}

/// A type config of openraft with our types; only the runtime is free.
pub trait Config:
    RaftTypeConfig<
        D = Request,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = LeaderId,
        Vote = Ballot,
        Payload = Payload,
        Entry = Entry,
    >
{
}

impl<C> Config for C where
    C: RaftTypeConfig<
            D = Request,
            R = Outcome,
            NodeId = NodeId,
            Node = Member,
            Term = u64,
            LeaderId = LeaderId,
            Vote = Ballot,
            Payload = Payload,
            Entry = Entry,
        >
{
}

openraft::declare_raft_types!(
    /// What the product runs on.
    pub Product:
        D = Request,
        R = Outcome,
        Node = Member,
        AsyncRuntime = TokioRuntime,
);
