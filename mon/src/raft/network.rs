//! Consensus between monitors over gRPC and the cluster's TLS: the calling side.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nacre_mon_api::channel::{LARGEST_MESSAGE, channel};
use nacre_mon_api::v1;
use nacre_mon_api::v1::raft_client::RaftClient;
use nacre_net::identity::Name;
use nacre_net::tls::{Expect, TlsClient};
use nacre_proto::ids::MonId;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use tonic::transport::Channel;

use super::convert::{self, ConvertError};
use super::{Ballot, Member, NodeId, Product, Snapshot};

/// Bytes of a snapshot in one message.
const PART: usize = 256 << 10;

/// Makes the ways to the other monitors.
#[derive(Clone)]
pub struct Peers {
    tls: TlsClient,
    /// The way to the monitor that led when something was last passed on. Kept, because each OSD speaks every second and
    /// may well have chosen a follower: a handshake for each of those cost more than all else an idle monitor does.
    onward: Arc<Mutex<Option<(Member, Channel)>>>,
}

impl Peers {
    /// Ways that authenticate with `tls`.
    pub fn new(tls: TlsClient) -> Peers {
        Peers { tls, onward: Arc::default() }
    }

    /// A channel to the leader, the same as before if it has not changed.
    pub fn onward(&self, leader: &Member) -> Channel {
        let mut kept = self.onward.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((member, channel)) if member == leader => channel.clone(),
            _ => {
                let channel = self.channel(leader);
                *kept = Some((leader.clone(), channel.clone()));
                channel
            }
        }
    }

    /// A channel to a monitor, which must prove to be that monitor.
    pub fn channel(&self, member: &Member) -> Channel {
        channel(&self.tls, &member.address, Expect::Name(Name::mon(MonId(member.mon))))
    }
}

impl RaftNetworkFactory<Product> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, _target: NodeId, member: &Member) -> Peer {
        let stub = RaftClient::new(self.channel(member))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        Peer { stub }
    }
}

/// The way to one monitor.
pub struct Peer {
    stub: RaftClient<Channel>,
}

/// Every failure of the way counts as unreachable, so that openraft pauses before it tries again.
fn unreachable(error: tonic::Status) -> RPCError<Product> {
    RPCError::Unreachable(Unreachable::new(&io::Error::other(nacre_mon_api::status::from_grpc(&error))))
}

fn garbled(error: ConvertError) -> RPCError<Product> {
    RPCError::Network(NetworkError::new(&error))
}

async fn within<T>(
    option: &RPCOption,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, RPCError<Product>> {
    match tokio::time::timeout(option.hard_ttl(), call).await {
        Ok(reply) => reply.map(tonic::Response::into_inner).map_err(unreachable),
        Err(_) => Err(unreachable(tonic::Status::deadline_exceeded("no answer in time"))),
    }
}

fn vote_message(rpc: &VoteRequest<Product>) -> v1::VoteRequest {
    v1::VoteRequest {
        ballot: Some(convert::ballot_to(&rpc.vote)),
        last: rpc.last_log_id.as_ref().map(convert::log_id_to),
        leadership_transfer: rpc.leadership_transfer,
    }
}

fn vote_reply(reply: v1::VoteReply) -> Result<VoteResponse<Product>, RPCError<Product>> {
    let ballot = convert::ballot_from(reply.ballot).map_err(garbled)?;
    let last = convert::log_id_from(reply.last).map_err(garbled)?;
    Ok(VoteResponse::new(ballot, last, reply.granted))
}

impl RaftNetworkV2<Product> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Product>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Product>, RPCError<Product>> {
        let request = v1::AppendRequest {
            ballot: Some(convert::ballot_to(&rpc.vote)),
            previous: rpc.prev_log_id.as_ref().map(convert::log_id_to),
            entries: rpc.entries.iter().map(convert::entry_to).collect(),
            committed: rpc.leader_commit.as_ref().map(convert::log_id_to),
        };
        let reply = within(&option, self.stub.append(request)).await?;
        match reply.outcome() {
            v1::append_reply::Outcome::Success => Ok(AppendEntriesResponse::Success),
            v1::append_reply::Outcome::Partial => {
                Ok(AppendEntriesResponse::PartialSuccess(convert::log_id_from(reply.matched).map_err(garbled)?))
            }
            v1::append_reply::Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
            v1::append_reply::Outcome::HigherBallot => {
                Ok(AppendEntriesResponse::HigherVote(convert::ballot_from(reply.ballot).map_err(garbled)?))
            }
            v1::append_reply::Outcome::Unknown => {
                Err(garbled(ConvertError::Missing { message: "append reply", field: "outcome" }))
            }
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Product>,
        option: RPCOption,
    ) -> Result<VoteResponse<Product>, RPCError<Product>> {
        vote_reply(within(&option, self.stub.vote(vote_message(&rpc))).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Product>,
        option: RPCOption,
    ) -> Result<VoteResponse<Product>, RPCError<Product>> {
        vote_reply(within(&option, self.stub.pre_vote(vote_message(&rpc))).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Ballot,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Product>, StreamingError<Product>> {
        let head = v1::SnapshotHead {
            ballot: Some(convert::ballot_to(&vote)),
            meta: Some(convert::meta_to(&snapshot.meta)),
            length: snapshot.snapshot.len() as u64,
        };
        let data = snapshot.snapshot;
        let parts = (0..data.len()).step_by(PART).map(move |at| data.slice(at..data.len().min(at + PART)));
        let messages = std::iter::once(v1::snapshot_part::Part::Head(head))
            .chain(parts.map(v1::snapshot_part::Part::Data))
            .map(|part| v1::SnapshotPart { part: Some(part) });
        let send = within(&option, self.stub.snapshot(futures_util::stream::iter(messages)));
        let reply = tokio::select! {
            reply = send => reply?,
            closed = cancel => return Err(closed.into()),
        };
        Ok(SnapshotResponse::new(convert::ballot_from(reply.ballot).map_err(garbled)?))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Product>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Product>, RPCError<Product>> {
        let request = v1::TransferRequest {
            from: Some(convert::ballot_to(req.from_leader())),
            to: *req.to_node_id(),
            last: req.last_log_id().map(convert::log_id_to),
        };
        // Refused or not, an election settles it.
        within(&option, self.stub.transfer_leader(request)).await.map(|_| Ok(()))
    }
}
