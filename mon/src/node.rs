//! A running monitor: consensus, the state it decides, and what the services ask of both.
//!
//! Invariants: a command is answered only after the quorum has committed it and this state has applied it; a read that
//! claims to be linearizable has asked the quorum who leads after it arrived.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nacre_maps::ClusterMap;
use nacre_maps::placement::Placement;
use nacre_mon_api::v1;
use nacre_net::metrics::Histogram;
use nacre_proto::status::{Code, Status};
use openraft::errors::{ChangeMembershipError, ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Instant, Raft, SnapshotPolicy};
use prost::Message;

use crate::leader::Heard;
use crate::raft::clock::{Clock, HEARTBEAT, LEASE};
use crate::raft::network::Peers;
use crate::raft::{Entry, LeaderId, LogId, Member, NodeId, Outcome, Product, Request};
use crate::state::hub::Hub;
use crate::state::machine::{Machine, Shared};
use crate::store::{Identity, Store};

/// How long a command may take before its sender is told to ask again. Longer than an election, and shorter than a
/// client waits for one monitor ([`MonClient`](nacre_mon_api::MonClient)), so that it hears the reason.
const COMMIT: Duration = Duration::from_millis(2500);
/// Consensus that says nothing is asked this often whether it still answers.
const LOOK: Duration = Duration::from_secs(5);

/// Where a call has to go.
#[derive(Debug)]
pub enum Elsewhere {
    /// To the leader.
    Leader(NodeId, Member),
    /// Nowhere: it failed, or nobody leads.
    Failed(Status),
}

impl From<Status> for Elsewhere {
    fn from(status: Status) -> Elsewhere {
        Elsewhere::Failed(status)
    }
}

/// See the module.
pub struct Node {
    /// Consensus.
    pub raft: Raft<Product, Machine>,
    /// The state as this monitor has it.
    pub shared: Shared,
    /// For subscribers.
    pub hub: Arc<Hub>,
    /// Ways to the others.
    pub peers: Peers,
    /// Whose it is.
    pub identity: Identity,
    /// What daemons reported to this monitor while it leads.
    pub reports: Mutex<Heard>,
    /// When consensus looks at its clocks.
    pub clock: Clock,
    commits: Histogram,
    store: Store,
}

/// How openraft is run. Elections: a follower that hears nothing for the lease (600 ms) and its own share of 400 to 600
/// ms stands, after asking the others whether they too hear nothing. A new leader so stands well inside two seconds.
pub fn config() -> openraft::Config {
    openraft::Config {
        cluster_name: "nacre".into(),
        // Two in a lease. It also sets how often a monitor looks at its clocks while nobody leads: five times in this;
        // while somebody does, see [`mod@crate::raft::clock`].
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: 400,
        election_timeout_max: millis(LEASE),
        install_snapshot_timeout: 10_000,
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(2000),
        max_in_snapshot_log_to_keep: 500,
        purge_batch_size: 64,
        replication_lag_threshold: 2000,
        enable_pre_vote: Some(true),
        // A leader that comes back must be elected anew. It may have lost the tail of its log, which it need not have
        // synced for the others to commit it; leading on in the same term, it would write other entries under the log
        // ids of those, and nobody could tell the two apart.
        enable_leader_restore: Some(false),
        backoff: "50ms".into(),
        // They are made for this many messages at once; the defaults take 24 MiB of memory.
        api_channel_size: Some(1024),
        notification_channel_size: Some(4096),
        ..openraft::Config::default()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn broken(error: &dyn std::fmt::Display) -> Status {
    Status::new(Code::Stopping, format!("this monitor is stopping or its store failed: {error}"))
}

impl Node {
    /// Starts consensus on an open store.
    pub async fn start(
        store: Store,
        machine: Machine,
        hub: Arc<Hub>,
        peers: Peers,
        identity: Identity,
        commits: Histogram,
    ) -> Result<Node, Status> {
        let config = config().validate().map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let shared = machine.shared();
        let raft = Raft::new(identity.node, Arc::new(config), peers.clone(), store.clone(), machine)
            .await
            .map_err(|error| broken(&error))?;
        Ok(Node { raft, shared, hub, peers, identity, reports: Mutex::default(), clock: Clock::new(), commits, store })
    }

    /// How often its store was made durable.
    pub fn syncs(&self) -> u64 {
        self.store.syncs()
    }

    /// Makes this and the others the first quorum. Harmless when there is one already.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, Member>) -> Result<(), Status> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Status::new(Code::Refused, error.to_string())),
        }
    }

    pub(crate) fn nobody_leads(&self) -> Status {
        let members = self.shared.read().membership.voter_ids().count();
        Status::new(
            Code::Unavailable,
            format!(
                "no leader: fewer than a majority of {members} monitors reach each other; `nacre mon status` says which are up"
            ),
        )
    }

    fn redirect(&self, leader: Option<NodeId>, member: Option<Member>) -> Elsewhere {
        match (leader, member) {
            (Some(leader), Some(member)) if leader != self.identity.node => Elsewhere::Leader(leader, member),
            _ => Elsewhere::Failed(self.nobody_leads()),
        }
    }

    /// Who leads, as far as this monitor knows.
    pub async fn leader(&self) -> Option<(NodeId, Member)> {
        let leader = self.raft.current_leader().await?;
        let member = self.shared.read().membership.get_node(&leader).cloned()?;
        Some((leader, member))
    }

    /// Has the quorum do a command.
    pub async fn execute(&self, who: String, request: &v1::ExecuteRequest) -> Result<v1::ExecuteReply, Elsewhere> {
        let mut command = request.command.clone().unwrap_or_default();
        let hint = self.fill_in(&mut command);
        let reply = |mut outcome: Outcome| {
            if let (true, Some(hint)) = (outcome.code != 0, hint) {
                outcome.text = format!("{} ({hint})", outcome.text);
            }
            reply(outcome)
        };
        if request.session == 0 || request.sequence == 0 {
            return Err(Status::new(Code::Invalid, "a command needs a session and a sequence number from 1").into());
        }
        let entry = Request {
            session: request.session,
            sequence: request.sequence,
            at_ms: now_ms(),
            who,
            command: command.encode_to_vec().into(),
        };
        if request.dry_run {
            self.linearize().await?;
            let mut state = self.shared.read().clone();
            let log_id = LogId { leader_id: LeaderId { term: 0, node_id: 0 }, index: u64::MAX };
            let before = state.map.clone();
            let applied = state.apply(&Entry { log_id, payload: openraft::EntryPayload::Normal(entry) });
            return Ok(reply(self.with_moved(applied.outcome, before, state.map)));
        }
        let began = std::time::Instant::now();
        let write = tokio::time::timeout(COMMIT, self.raft.client_write(entry)).await;
        match write {
            Ok(Ok(done)) => {
                self.commits.observe(began.elapsed());
                Ok(reply(done.data))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(self.redirect(to.leader_id, to.leader_node))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Err(Status::new(Code::NotLeader, "the leader changed while the command was on its way").into())
            }
            Ok(Err(RaftError::APIError(error))) => Err(Status::new(Code::Refused, error.to_string()).into()),
            Ok(Err(RaftError::Fatal(error))) => Err(broken(&error).into()),
            Err(_) => Err(Status::new(
                Code::Unavailable,
                format!("not committed within {COMMIT:?}: too few monitors answer; it may still be done"),
            )
            .into()),
        }
    }

    /// Adds to the outcome of a dry run how much data would move.
    fn with_moved(&self, mut outcome: Outcome, before: Arc<ClusterMap>, after: Arc<ClusterMap>) -> Outcome {
        let Ok(mut detail) = nacre_proto::v1::Outcome::decode(outcome.detail.clone()) else { return outcome };
        if outcome.code != 0 {
            return outcome;
        }
        if let (Ok(before), Ok(after)) = (Placement::build(before), Placement::build(after)) {
            let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = heard.reports.pgs.iter().map(|(pg, report)| (*pg, report.bytes)).collect();
            let moved = nacre_maps::plan::moved::between(&before, &after, &bytes);
            detail.moved = Some(nacre_proto::v1::Moved {
                pgs: moved.pgs,
                copies: moved.copies,
                of: moved.of,
                bytes: moved.bytes,
                millionths: moved.millionths(),
            });
            outcome.detail = detail.encode_to_vec().into();
        }
        outcome
    }

    /// Returns once this state holds everything that was committed when it was called. Only the leader can tell.
    pub async fn linearize(&self) -> Result<(), Elsewhere> {
        match tokio::time::timeout(COMMIT, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(self.redirect(to.leader_id, to.leader_node))
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(self.nobody_leads().into()),
            Ok(Err(RaftError::Fatal(error))) => Err(broken(&error).into()),
        }
    }

    /// What this monitor knows of the quorum and the map.
    pub fn status(&self, linearizable: bool) -> v1::StatusReply {
        use openraft::async_runtime::WatchReceiver;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership().clone();
        let silence = metrics.heartbeat.clone().unwrap_or_default();
        let members = membership
            .nodes()
            .map(|(node, member)| v1::Voter {
                node: *node,
                mon: member.mon,
                address: member.address.clone(),
                voter: membership.voter_ids().any(|voter| voter == *node),
                silent_ms: silence
                    .get(node)
                    .and_then(|heard| heard.as_ref())
                    .map(|heard| u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX)),
                matched: metrics
                    .replication
                    .as_ref()
                    .and_then(|all| all.get(node).cloned().flatten())
                    .map(|id| id.index),
            })
            .collect();
        let (health, usage) = self.health();
        let state = self.shared.read();
        v1::StatusReply {
            fsid: self.identity.fsid.clone(),
            mon: self.identity.mon,
            node: self.identity.node,
            role: format!("{:?}", metrics.state).to_lowercase(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            members,
            applied: state.applied.map_or(0, |id| id.index),
            log_last: metrics.last_log_index.unwrap_or(0),
            snapshot: metrics.snapshot.map_or(0, |id| id.index),
            commands: state.commands,
            epoch: state.map.epoch.0,
            map: self.hub.full(),
            linearizable,
            health: Some(health.message()),
            used_bytes: usage.used,
            total_bytes: usage.total,
            objects: usage.objects,
            pgs: usage.pgs.into_iter().map(|(state, count)| v1::PgCount { state, count }).collect(),
            degraded: usage.degraded,
            misplaced: usage.misplaced,
            unfound: usage.unfound,
            newest_event: state.events.newest(),
            now_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The term of consensus this monitor is in.
    pub(crate) fn term(&self) -> u64 {
        use openraft::async_runtime::WatchReceiver;
        self.raft.metrics().borrow_watched().current_term
    }

    /// Changes who votes, because `who` asks for it. On the leader.
    pub async fn change_quorum(
        &self,
        who: &str,
        change: &v1::change_quorum_request::Change,
    ) -> Result<v1::ChangeQuorumReply, Elsewhere> {
        self.linearize().await?;
        match change {
            v1::change_quorum_request::Change::Join(join) => self.join(who, join).await,
            v1::change_quorum_request::Change::Remove(mon) => self.remove(who, *mon).await,
            v1::change_quorum_request::Change::Lead(mon) => self.lead(who, *mon).await,
        }
    }

    fn members(&self) -> BTreeMap<NodeId, Member> {
        self.shared.read().membership.nodes().map(|(node, member)| (*node, member.clone())).collect()
    }

    fn quorum_reply(&self, text: String, node: NodeId) -> v1::ChangeQuorumReply {
        let members = self.members().into_iter();
        v1::ChangeQuorumReply {
            text,
            node,
            members: members
                .map(|(node, member)| v1::Member { node, mon: member.mon, address: member.address })
                .collect(),
        }
    }

    /// Two steps, so that a newcomer can be reached before the quorum depends on it. Without a node id it is given one;
    /// with one it becomes a learner, catches up, and takes the vote of the incarnation it replaces.
    async fn join(&self, who: &str, join: &v1::JoinQuorum) -> Result<v1::ChangeQuorumReply, Elsewhere> {
        if join.mon > 0xffff || join.address.parse::<std::net::SocketAddr>().is_err() {
            let text = format!(
                "mon.{} at {:?}: a number up to 65535 and an IP address with port are needed",
                join.mon, join.address
            );
            return Err(Status::new(Code::Invalid, text).into());
        }
        let members = self.members();
        if join.node == 0 {
            // Never used before: above every incarnation there is and beyond what a clock gave an earlier one.
            let newest = members.keys().map(|node| node >> 16).max().unwrap_or(0);
            let node = ((newest + 1).max(now_ms()) << 16) | join.mon;
            return Ok(self.quorum_reply(format!("mon.{} may join as node {node:x}", join.mon), node));
        }
        if join.node & 0xffff != join.mon {
            return Err(Status::new(Code::Invalid, "this node id was given to another monitor").into());
        }
        let member = Member { mon: join.mon, address: join.address.clone() };
        if members.get(&join.node) != Some(&member) {
            self.raft.add_learner(join.node, member, true).await.map_err(|error| self.unchanged(&error))?;
        }
        let old: Vec<NodeId> = members
            .iter()
            .filter(|(node, member)| member.mon == join.mon && **node != join.node)
            .map(|(node, _)| *node)
            .collect();
        let mut voters: std::collections::BTreeSet<NodeId> = self.shared.read().membership.voter_ids().collect();
        voters.insert(join.node);
        voters.retain(|voter| !old.contains(voter));
        self.raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), false)
            .await
            .map_err(|error| self.unchanged(&error))?;
        let stale: std::collections::BTreeSet<NodeId> =
            self.members().keys().filter(|node| old.contains(node)).copied().collect();
        if !stale.is_empty() {
            self.raft
                .change_membership(ChangeMembers::RemoveNodes(stale), false)
                .await
                .map_err(|error| self.unchanged(&error))?;
        }
        self.audit(who, format!("mon.{} at {} votes, as node {:x}", join.mon, join.address, join.node)).await;
        Ok(self.quorum_reply(format!("mon.{} votes", join.mon), join.node))
    }

    async fn remove(&self, who: &str, mon: u64) -> Result<v1::ChangeQuorumReply, Elsewhere> {
        let members = self.members();
        let Some((node, _)) = members.iter().find(|(_, member)| member.mon == mon) else {
            return Err(Status::new(Code::NotFound, format!("mon.{mon} is no member of the quorum")).into());
        };
        let mut voters: std::collections::BTreeSet<NodeId> = self.shared.read().membership.voter_ids().collect();
        voters.remove(node);
        if voters.is_empty() {
            let text = format!("mon.{mon} is the only monitor: add another first");
            return Err(Status::new(Code::Refused, text).into());
        }
        // Before it is done: whoever takes itself out can write nothing any more.
        self.audit(who, format!("mon.{mon} is taken out of the quorum")).await;
        self.raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), false)
            .await
            .map_err(|error| self.unchanged(&error))?;
        let text = format!(
            "mon.{mon} is no member any more; its process goes on until it is stopped, as by `nacre down mon.{mon}`"
        );
        Ok(self.quorum_reply(text, *node))
    }

    async fn lead(&self, who: &str, mon: u64) -> Result<v1::ChangeQuorumReply, Elsewhere> {
        let members = self.members();
        let Some((node, _)) = members.iter().find(|(_, member)| member.mon == mon) else {
            return Err(Status::new(Code::NotFound, format!("mon.{mon} is no member of the quorum")).into());
        };
        self.audit(who, format!("mon.{mon} is asked to lead")).await;
        self.raft.trigger().transfer_leader(*node).await.map_err(|error| broken(&error))?;
        Ok(self.quorum_reply(format!("mon.{mon} was asked to lead"), *node))
    }

    fn unchanged(&self, error: &RaftError<Product, ClientWriteError<Product>>) -> Elsewhere {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to) | ClientWriteError::LogEntryDiscarded(to)) => {
                self.redirect(to.leader_id, to.leader_node.clone())
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
                Status::new(Code::Busy, "another change of the quorum is under way: try again when it is done").into()
            }
            RaftError::APIError(error) => Status::new(Code::Refused, error.to_string()).into(),
            RaftError::Fatal(error) => broken(error).into(),
        }
    }

    /// Returns when consensus has ended by itself: its store failed, or it has met something that must not be.
    pub async fn broken(&self) -> Status {
        use openraft::async_runtime::WatchReceiver;
        let mut news = self.raft.metrics();
        loop {
            if let Err(fatal) = &news.borrow_watched().running_state {
                return broken(fatal);
            }
            // One that panicked tells nobody, but takes no question any more.
            if let Err(fatal) = self.raft.with_raft_state(|_| ()).await {
                return broken(&fatal);
            }
            let ended = news.wait_until(|metrics| metrics.running_state.is_err());
            if let Ok(Err(_gone)) = tokio::time::timeout(LOOK, ended).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Ends consensus, in order, and syncs the store.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end in order");
        }
        if let Err(error) = self.store.sync() {
            tracing::error!(%error, "last sync failed");
        }
    }
}

fn reply(outcome: Outcome) -> v1::ExecuteReply {
    v1::ExecuteReply { code: outcome.code.into(), text: outcome.text, epoch: outcome.epoch, detail: outcome.detail }
}
