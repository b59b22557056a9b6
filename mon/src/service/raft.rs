//! Consensus between monitors over gRPC: the answering side.

use std::sync::{Arc, PoisonError};

use bytes::BytesMut;
use nacre_mon_api::status::to_grpc;
use nacre_mon_api::v1;
use nacre_mon_api::v1::raft_server::Raft;
use nacre_proto::status::{Code, Status};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use tonic::{Request, Response, Streaming};

use super::Door;
use crate::identity::office::Office;
use crate::node::Node;
use crate::raft::convert::{self, ConvertError};
use crate::raft::{Product, Snapshot};

/// A snapshot larger than this is refused before it fills the memory.
const LARGEST_SNAPSHOT: u64 = 1 << 30;

/// See the module.
#[derive(Clone)]
pub struct RaftService {
    /// The monitor.
    pub node: Arc<Node>,
    /// Who may call.
    pub door: Door,
    /// Who has the seal key.
    pub office: Arc<Office>,
}

fn garbled(error: ConvertError) -> tonic::Status {
    to_grpc(&Status::new(Code::Invalid, error.to_string()))
}

fn failed(error: impl std::fmt::Display) -> tonic::Status {
    to_grpc(&Status::new(Code::Stopping, format!("consensus has stopped here: {error}")))
}

fn vote_request(request: v1::VoteRequest) -> Result<VoteRequest<Product>, tonic::Status> {
    let ballot = convert::ballot_from(request.ballot).map_err(garbled)?;
    let mut vote = VoteRequest::new(ballot, convert::log_id_from(request.last).map_err(garbled)?);
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

fn vote_reply(reply: &VoteResponse<Product>) -> Response<v1::VoteReply> {
    Response::new(v1::VoteReply {
        ballot: Some(convert::ballot_to(&reply.vote)),
        granted: reply.vote_granted,
        last: reply.last_log_id.as_ref().map(convert::log_id_to),
    })
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendReply>, tonic::Status> {
        self.door.admit_monitor("append", &request)?;
        let request = request.into_inner();
        let entries: Result<Vec<_>, _> = request.entries.into_iter().map(convert::entry_from).collect();
        let append = AppendEntriesRequest {
            vote: convert::ballot_from(request.ballot).map_err(garbled)?,
            prev_log_id: convert::log_id_from(request.previous).map_err(garbled)?,
            entries: entries.map_err(garbled)?,
            leader_commit: convert::log_id_from(request.committed).map_err(garbled)?,
        };
        let mut reply = v1::AppendReply::default();
        let outcome = self.node.raft.append_entries(append).await.map_err(failed)?;
        if !matches!(outcome, AppendEntriesResponse::HigherVote(_)) {
            self.node.clock.hear();
        }
        match outcome {
            AppendEntriesResponse::Success => reply.set_outcome(v1::append_reply::Outcome::Success),
            AppendEntriesResponse::PartialSuccess(matched) => {
                reply.set_outcome(v1::append_reply::Outcome::Partial);
                reply.matched = matched.as_ref().map(convert::log_id_to);
            }
            AppendEntriesResponse::Conflict => reply.set_outcome(v1::append_reply::Outcome::Conflict),
            AppendEntriesResponse::HigherVote(ballot) => {
                reply.set_outcome(v1::append_reply::Outcome::HigherBallot);
                reply.ballot = Some(convert::ballot_to(&ballot));
            }
        }
        Ok(Response::new(reply))
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteReply>, tonic::Status> {
        self.door.admit_monitor("vote", &request)?;
        let vote = vote_request(request.into_inner())?;
        Ok(vote_reply(&self.node.raft.vote(vote).await.map_err(failed)?))
    }

    async fn pre_vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteReply>, tonic::Status> {
        self.door.admit_monitor("pre-vote", &request)?;
        let vote = vote_request(request.into_inner())?;
        Ok(vote_reply(&self.node.raft.pre_vote(vote).await.map_err(failed)?))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotReply>, tonic::Status> {
        self.door.admit_monitor("snapshot", &request)?;
        let mut parts = request.into_inner();
        let invalid = |text: String| to_grpc(&Status::new(Code::Invalid, text));
        let Some(v1::SnapshotPart { part: Some(v1::snapshot_part::Part::Head(head)) }) = parts.message().await? else {
            return Err(invalid("a snapshot starts with its head".into()));
        };
        if head.length > LARGEST_SNAPSHOT {
            return Err(invalid(format!("a snapshot of {} bytes is beyond {LARGEST_SNAPSHOT}", head.length)));
        }
        let length = usize::try_from(head.length).map_err(|error| invalid(error.to_string()))?;
        let mut snapshot = BytesMut::new();
        while let Some(part) = parts.message().await? {
            if let Some(v1::snapshot_part::Part::Data(data)) = part.part {
                if snapshot.len() + data.len() > length {
                    return Err(invalid(format!("a snapshot longer than the {length} bytes it announced")));
                }
                snapshot.extend_from_slice(&data);
            }
        }
        if snapshot.len() != length {
            return Err(invalid(format!("a snapshot of {} bytes that announced {length}", snapshot.len())));
        }
        let ballot = convert::ballot_from(head.ballot).map_err(garbled)?;
        let meta = convert::meta_from(head.meta).map_err(garbled)?;
        let snapshot = Snapshot { meta, snapshot: snapshot.freeze() };
        let reply = self.node.raft.install_full_snapshot(ballot, snapshot).await.map_err(failed)?;
        Ok(Response::new(v1::SnapshotReply { ballot: Some(convert::ballot_to(&reply.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Result<Response<v1::TransferReply>, tonic::Status> {
        self.door.admit_monitor("transfer-leader", &request)?;
        let request = request.into_inner();
        let from = convert::ballot_from(request.from).map_err(garbled)?;
        let last = convert::log_id_from(request.last).map_err(garbled)?;
        let transfer = TransferLeaderRequest::new(from, request.to, last);
        let accepted = self.node.raft.handle_transfer_leader(transfer).await.map_err(failed)?.is_ok();
        Ok(Response::new(v1::TransferReply { accepted }))
    }

    async fn seal_key(
        &self,
        request: Request<v1::SealKeyRequest>,
    ) -> Result<Response<v1::SealKeyReply>, tonic::Status> {
        self.door.admit_monitor("seal key", &request)?;
        let held = self.office.seal.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = held.ok_or_else(|| to_grpc(&Status::new(Code::NotFound, "this monitor has no seal key either")))?;
        Ok(Response::new(v1::SealKeyReply { key: key.reveal().to_string() }))
    }
}
