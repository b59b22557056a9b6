//! What a monitor does for everyone else. A follower passes on to the leader what only the leader may do.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use nacre_mon_api::channel::LARGEST_MESSAGE;
use nacre_mon_api::status::to_grpc;
use nacre_mon_api::v1;
use nacre_mon_api::v1::command::Verb;
use nacre_mon_api::v1::mon_client::MonClient as Stub;
use nacre_mon_api::v1::mon_server::Mon;
use nacre_net::identity::Ops;
use nacre_proto::ids::{Epoch, OsdId};
use nacre_proto::status::{Code, Status};
use nacre_proto::v1::{FailureReply, FailureReports, OsdBeacon, OsdBeaconReply};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response};

use super::{Door, Guest, leader, pass_on, relayed};
use crate::node::{Elsewhere, Node};
use crate::raft::Member;
use crate::state::hub::Step;

/// Updates a subscriber may be behind before its stream waits for it.
const AHEAD: usize = 16;
/// How long after a subscriber turned out to be ahead the quorum is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long a monitor that lags may take to get the lines the quorum has.
const LAG: Duration = Duration::from_secs(2);
/// Bytes of a backup in one message.
const PART: usize = 256 << 10;

/// See the module.
#[derive(Clone)]
pub struct MonService {
    /// The monitor.
    pub node: Arc<Node>,
    /// Who may call.
    pub door: Door,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// The name of a verb in logs and the class of operation it needs. What an OSD or another daemon says of itself needs
/// WRITE, all else changes the cluster and needs ADMIN.
fn verb_name(verb: &Verb) -> (&'static str, Ops) {
    use nacre_proto::v1::map_command::Verb as Map;
    let Verb::Map(command) = verb else { return ("note", Ops::WRITE) };
    match &command.verb {
        Some(Map::OsdBoot(_)) => ("osd boot", Ops::WRITE),
        Some(Map::OsdStopping(_)) => ("osd stopping", Ops::WRITE),
        Some(Map::PgTemp(_)) => ("pg temp", Ops::WRITE),
        Some(Map::UpThru(_)) => ("up thru", Ops::WRITE),
        Some(Map::DaemonBeacon(_)) => ("daemon beacon", Ops::WRITE),
        Some(Map::PoolCreate(_)) => ("pool create", Ops::ADMIN),
        Some(Map::PoolSet(_)) => ("pool set", Ops::ADMIN),
        Some(Map::PoolRemove(_)) => ("pool rm", Ops::ADMIN),
        Some(Map::SettingSet(_)) => ("config set", Ops::ADMIN),
        Some(Map::SettingRemove(_)) => ("config unset", Ops::ADMIN),
        Some(Map::OsdOut(_)) => ("osd out", Ops::ADMIN),
        Some(Map::OsdIn(_)) => ("osd in", Ops::ADMIN),
        Some(Map::OsdDown(_)) => ("osd down", Ops::ADMIN),
        Some(Map::OsdRemove(_)) => ("osd rm", Ops::ADMIN),
        Some(Map::OsdDestroy(_)) => ("osd replace", Ops::ADMIN),
        Some(Map::OsdLost(_)) => ("osd lost", Ops::ADMIN),
        Some(Map::FlagSet(_)) => ("flag set", Ops::ADMIN),
        Some(Map::FlagClear(_)) => ("flag clear", Ops::ADMIN),
        Some(Map::Unfence(_)) => ("unfence", Ops::ADMIN),
        Some(Map::Fence(_)) => ("fence", Ops::ADMIN),
        // Whoever may write objects needs numbers for the snapshots of what it writes.
        Some(Map::SnapMake(_)) => ("snapshot make", Ops::WRITE),
        Some(Map::SnapDrop(_)) => ("snapshot drop", Ops::WRITE),
        Some(Map::Revoke(_)) => ("cert revoke", Ops::ADMIN),
        _ => ("change the map", Ops::ADMIN),
    }
}

/// The OSD a command speaks for, if it speaks for one: nobody else may say it.
fn spoken_for(verb: &Verb) -> Option<OsdId> {
    use nacre_proto::v1::map_command::Verb as Map;
    let Verb::Map(command) = verb else { return None };
    match &command.verb {
        Some(Map::OsdBoot(boot)) => Some(OsdId(boot.osd)),
        Some(Map::OsdStopping(stopping)) => Some(OsdId(stopping.osd)),
        Some(Map::PgTemp(temp)) => Some(OsdId(temp.from)),
        Some(Map::UpThru(up_thru)) => Some(OsdId(up_thru.osd)),
        _ => None,
    }
}

impl MonService {
    fn onward(&self, leader: &Member) -> Stub<Channel> {
        Stub::new(self.node.peers.onward(leader))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE)
    }

    /// The newest epoch of the quorum; nothing if none answers.
    async fn quorum_epoch(&self) -> Option<u64> {
        match self.node.linearize().await {
            Ok(()) => Some(self.node.hub.epoch()),
            Err(Elsewhere::Leader(_, leader)) => {
                let guest = Guest { who: format!("mon.{}", self.node.identity.mon), passed_on: false };
                let ask = pass_on(&guest, v1::StatusRequest { local: false }).ok()?;
                Some(self.onward(&leader).status(ask).await.ok()?.into_inner().epoch)
            }
            Err(Elsewhere::Failed(_)) => None,
        }
    }
}

impl MonService {
    /// Waits until this monitor has each line of the cluster log that was committed when it was asked.
    async fn catch_up(&self, guest: &Guest) -> Result<(), tonic::Status> {
        let leader = match self.node.linearize().await {
            Ok(()) => return Ok(()),
            Err(elsewhere) => leader(guest, elsewhere)?,
        };
        let ask = pass_on(guest, v1::StatusRequest { local: false })?;
        let status = relayed(&self.node, &leader, self.onward(&leader).status(ask).await)?;
        let newest = status.into_inner().newest_event;
        let mut events = self.node.hub.events();
        match tokio::time::timeout(LAG, events.wait_for(|have| *have >= newest)).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let text = format!("mon.{} lags behind the quorum: ask another", self.node.identity.mon);
                Err(to_grpc(&Status::new(Code::Unavailable, text)))
            }
        }
    }
}

#[tonic::async_trait]
impl Mon for MonService {
    async fn execute(&self, request: Request<v1::ExecuteRequest>) -> Result<Response<v1::ExecuteReply>, tonic::Status> {
        let Some(verb) = request.get_ref().command.as_ref().and_then(|command| command.verb.as_ref()) else {
            let text = "the command is of a later release: upgrade the monitors first";
            self.door.admit("execute", Ops::READ, &request)?;
            return Err(to_grpc(&Status::new(Code::Unsupported, text)));
        };
        if matches!(verb, Verb::Identity(_)) {
            self.door.admit("identity change", Ops::ADMIN, &request)?;
            let text = "identities are changed through `nacre cert`, which decides and signs";
            return Err(to_grpc(&Status::new(Code::Refused, text)));
        }
        let (name, ops) = verb_name(verb);
        let guest = self.door.admit_for(name, ops, spoken_for(verb), &request)?;
        let message = request.into_inner();
        match self.node.execute(guest.who.clone(), &message).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).execute(pass_on(&guest, message)?).await)
            }
        }
    }

    type SubscribeStream = Streamed<v1::MapUpdate>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, tonic::Status> {
        self.door.admit("subscribe", Ops::READ, &request)?;
        let mut have = request.into_inner().have;
        let hub = self.node.hub.clone();
        let (to, updates) = mpsc::channel(AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            let (mut epochs, _counted) = (hub.epochs(), hub.subscriber());
            while hub.epoch() < have {
                // Either this monitor lags, or the quorum was rebuilt from a backup and what the subscriber has never
                // was. Only the quorum can tell.
                match service.quorum_epoch().await {
                    Some(newest) if newest < have => have = 0,
                    _ => tokio::select! {
                        () = tokio::time::sleep(ASK_AGAIN) => {}
                        () = to.closed() => return,
                    },
                }
            }
            loop {
                while let Some(step) = hub.next(have) {
                    let (epoch, update) = match step {
                        Step::Full(epoch, bytes) => (epoch, v1::map_update::Update::Full(bytes)),
                        Step::Increment(epoch, bytes) => (epoch, v1::map_update::Update::Increment(bytes)),
                    };
                    if to.send(Ok(v1::MapUpdate { epoch, update: Some(update) })).await.is_err() {
                        return;
                    }
                    have = epoch;
                }
                tokio::select! {
                    changed = epochs.changed() => if changed.is_err() { return },
                    () = to.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(updates))))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, tonic::Status> {
        let guest = self.door.admit("status", Ops::READ, &request)?;
        let message = request.into_inner();
        if message.local {
            return Ok(Response::new(self.node.status(false)));
        }
        match self.node.linearize().await {
            Ok(()) => Ok(Response::new(self.node.status(true))),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).status(pass_on(&guest, message)?).await)
            }
        }
    }

    async fn reports(&self, request: Request<v1::ReportsRequest>) -> Result<Response<v1::ReportsReply>, tonic::Status> {
        let guest = self.door.admit("reports", Ops::READ, &request)?;
        match self.node.reports().await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).reports(pass_on(&guest, request.into_inner())?).await)
            }
        }
    }

    type LogStream = Streamed<v1::Event>;

    async fn log(&self, request: Request<v1::LogRequest>) -> Result<Response<Self::LogStream>, tonic::Status> {
        let guest = self.door.admit("log", Ops::READ, &request)?;
        let v1::LogRequest { mut after, last, follow, channel, local } = request.into_inner();
        if !local {
            self.catch_up(&guest).await?;
        }
        let node = self.node.clone();
        let (to, lines) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut news = node.hub.events();
            let mut keep = usize::try_from(last).ok().filter(|last| *last > 0).unwrap_or(usize::MAX);
            loop {
                let (batch, newest) = {
                    let state = node.shared.read();
                    let mut batch: Vec<v1::Event> = state
                        .events
                        .after(after)
                        .filter(|line| channel.is_empty() || line.channel == channel)
                        .cloned()
                        .collect();
                    batch.drain(..batch.len().saturating_sub(keep));
                    (batch, state.events.newest())
                };
                keep = usize::MAX;
                // A monitor that lags may know less than the caller has seen from another.
                after = newest.max(after);
                for line in batch {
                    if to.send(Ok(line)).await.is_err() {
                        return;
                    }
                }
                if !follow {
                    return;
                }
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = to.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(lines))))
    }

    async fn change_quorum(
        &self,
        request: Request<v1::ChangeQuorumRequest>,
    ) -> Result<Response<v1::ChangeQuorumReply>, tonic::Status> {
        let guest = self.door.admit("change-quorum", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        let Some(change) = &message.change else {
            return Err(to_grpc(&Status::new(
                Code::Unsupported,
                "no change of this release: upgrade the monitors first",
            )));
        };
        match self.node.change_quorum(&guest.who, change).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).change_quorum(pass_on(&guest, message)?).await)
            }
        }
    }

    async fn beacon(&self, request: Request<OsdBeacon>) -> Result<Response<OsdBeaconReply>, tonic::Status> {
        let osd = OsdId(request.get_ref().osd);
        let guest = self.door.admit_for("osd beacon", Ops::WRITE, Some(osd), &request)?;
        let message = request.into_inner();
        match self.node.beacon(message.clone()).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).beacon(pass_on(&guest, message)?).await)
            }
        }
    }

    async fn report_failures(&self, request: Request<FailureReports>) -> Result<Response<FailureReply>, tonic::Status> {
        let osd = OsdId(request.get_ref().reporter);
        let guest = self.door.admit_for("report failures", Ops::WRITE, Some(osd), &request)?;
        let message = request.into_inner();
        match self.node.report_failures(&message).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).report_failures(pass_on(&guest, message)?).await)
            }
        }
    }

    async fn barrier(&self, request: Request<v1::BarrierRequest>) -> Result<Response<v1::BarrierReply>, tonic::Status> {
        let guest = self.door.admit("barrier", Ops::READ, &request)?;
        let message = request.into_inner();
        match self.node.barrier(Epoch(message.epoch), Duration::from_millis(message.patience_ms)).await {
            Ok(behind) => Ok(Response::new(v1::BarrierReply { behind: behind.iter().map(|osd| osd.0).collect() })),
            Err(elsewhere) => {
                let leader = leader(&guest, elsewhere)?;
                relayed(&self.node, &leader, self.onward(&leader).barrier(pass_on(&guest, message)?).await)
            }
        }
    }

    type BackupStream = Streamed<v1::BackupPart>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, tonic::Status> {
        let guest = self.door.admit("backup", Ops::ADMIN, &request)?;
        if let Err(elsewhere) = self.node.linearize().await {
            let leader = leader(&guest, elsewhere)?;
            let parts = self.onward(&leader).backup(pass_on(&guest, v1::BackupRequest {})?).await;
            let parts = relayed(&self.node, &leader, parts)?.into_inner();
            return Ok(Response::new(Box::pin(parts)));
        }
        let state = self.node.shared.read().encode();
        let parts: Vec<_> = (0..state.len())
            .step_by(PART)
            .map(|at| Ok(v1::BackupPart { data: state.slice(at..state.len().min(at + PART)) }))
            .collect();
        Ok(Response::new(Box::pin(futures_util::stream::iter(parts))))
    }
}
