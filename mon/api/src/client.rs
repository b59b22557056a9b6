//! A handle on the monitors: whichever of them answers will do. A command is sent under one session and sequence until
//! it is answered, so however often that takes, it happens once.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nacre_net::identity::Kind;
use nacre_net::tls::renew::{Answer, Ask};
use nacre_net::tls::{Expect, TlsClient};
use nacre_proto::status::{Code, Retry, Status};
use nacre_proto::v1::{FailureReply, FailureReports, OsdBeacon, OsdBeaconReply};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::channel::{AT_EASE, ATTENTIVE, LARGEST_MESSAGE, channel_asking};
use crate::status::from_grpc;
use crate::v1;
use crate::v1::cert_client::CertClient;
use crate::v1::mon_client::MonClient as Stub;

/// The map from an epoch on, then each change of it.
pub type Maps = Streaming<v1::MapUpdate>;

/// How long one call waits for a barrier.
const BARRIER_STEP: Duration = Duration::from_secs(1);
/// How long one monitor gets before the next is asked.
const ATTEMPT: Duration = Duration::from_secs(3);

/// See the module. A clone would share the session, so there is none: open another.
pub struct MonClient {
    monitors: Vec<(String, Channel)>,
    preferred: AtomicUsize,
    session: u64,
    sequence: AtomicU64,
    patience: Duration,
}

impl MonClient {
    /// A handle on the monitors at these addresses. Connects when first used.
    pub fn new(tls: &TlsClient, addresses: impl IntoIterator<Item = String>, patience: Duration) -> MonClient {
        MonClient::asking(tls, addresses, patience, ATTENTIVE)
    }

    /// The same for somebody who finds out otherwise that a stream is silent which should not be, and goes on elsewhere
    /// then ([`MonClient::subscribe_elsewhere`]): its connections cost next to nothing while nothing happens.
    pub fn at_ease(tls: &TlsClient, addresses: impl IntoIterator<Item = String>, patience: Duration) -> MonClient {
        MonClient::asking(tls, addresses, patience, AT_EASE)
    }

    fn asking(
        tls: &TlsClient,
        addresses: impl IntoIterator<Item = String>,
        patience: Duration,
        silence: Duration,
    ) -> MonClient {
        let monitors = addresses
            .into_iter()
            .map(|address| {
                let to = channel_asking(tls, &address, Expect::Kind(Kind::Mon), silence);
                (address, to)
            })
            .collect();
        MonClient {
            monitors,
            preferred: AtomicUsize::new(0),
            session: rand::random(),
            sequence: AtomicU64::new(0),
            patience,
        }
    }

    /// The monitor asked first.
    pub fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    /// Does a command.
    pub async fn execute(&self, verb: v1::command::Verb, dry_run: bool) -> Result<v1::ExecuteReply, Status> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        self.execute_as(sequence, verb, dry_run).await
    }

    /// Does the command of that number of this session. To send one again whose fate is unknown.
    pub async fn execute_as(
        &self,
        sequence: u64,
        verb: v1::command::Verb,
        dry_run: bool,
    ) -> Result<v1::ExecuteReply, Status> {
        let request = v1::ExecuteRequest {
            session: self.session,
            sequence,
            command: Some(v1::Command { verb: Some(verb) }),
            dry_run,
        };
        let reply = self
            .ask(|mut stub| {
                let request = request.clone();
                async move { stub.execute(request).await }
            })
            .await?;
        match u16::try_from(reply.code) {
            Ok(0) => Ok(reply),
            Ok(code) => Err(Status::new(Code::from_number(code), reply.text)),
            Err(_) => Err(Status::new(Code::Internal, reply.text)),
        }
    }

    /// What there is to know about the cluster.
    pub async fn status(&self, local: bool) -> Result<v1::StatusReply, Status> {
        self.ask(|mut stub| async move { stub.status(v1::StatusRequest { local }).await }).await
    }

    /// What OSDs said of themselves and of pgs.
    pub async fn reports(&self) -> Result<v1::ReportsReply, Status> {
        self.ask(|mut stub| async move { stub.reports(v1::ReportsRequest {}).await }).await
    }

    /// The map from an epoch on.
    pub async fn subscribe(&self, have: u64) -> Result<Maps, Status> {
        self.ask(|mut stub| async move { stub.subscribe(v1::SubscribeRequest { have }).await }).await
    }

    /// The same from another monitor than the one that answered last, if there is one.
    pub async fn subscribe_elsewhere(&self, have: u64) -> Result<Maps, Status> {
        let subscribe = |channel| {
            let mut stub = stub(channel);
            async move { stub.subscribe(v1::SubscribeRequest { have }).await }
        };
        self.ask_at(1, subscribe).await
    }

    /// Lines of the cluster log.
    pub async fn log(&self, request: v1::LogRequest) -> Result<Streaming<v1::Event>, Status> {
        self.ask(|mut stub| {
            let request = request.clone();
            async move { stub.log(request).await }
        })
        .await
    }

    /// Changes who votes.
    pub async fn change_quorum(
        &self,
        change: v1::change_quorum_request::Change,
    ) -> Result<v1::ChangeQuorumReply, Status> {
        let request = v1::ChangeQuorumRequest { change: Some(change) };
        self.ask(|mut stub| {
            let request = request.clone();
            async move { stub.change_quorum(request).await }
        })
        .await
    }

    /// An OSD lives.
    pub async fn beacon(&self, beacon: OsdBeacon) -> Result<OsdBeaconReply, Status> {
        self.ask(|mut stub| {
            let beacon = beacon.clone();
            async move { stub.beacon(beacon).await }
        })
        .await
    }

    /// An OSD does not reach others.
    pub async fn report_failures(&self, reports: FailureReports) -> Result<FailureReply, Status> {
        self.ask(|mut stub| {
            let reports = reports.clone();
            async move { stub.report_failures(reports).await }
        })
        .await
    }

    /// The caller's own next certificate.
    pub async fn renew(&self, ask: Ask) -> Result<Answer, Status> {
        let trusts = ask.trusts.iter().map(|print| print.to_vec().into()).collect();
        let request = v1::RenewRequest { request: ask.request.into(), trusts, ..Default::default() };
        let reply = self.identities(|mut stub| {
            let request = request.clone();
            async move { stub.renew(request).await }
        });
        let v1::JoinReply { answer, authorities } = reply.await?;
        match answer {
            Some(v1::join_reply::Answer::Certificate(certificate)) => Ok(Answer {
                certificate: certificate.to_vec(),
                authorities: authorities.iter().map(|der| der.to_vec()).collect(),
            }),
            _ => Err(Status::new(Code::Internal, "the monitors answered a renewal with no certificate")),
        }
    }

    /// Asks about identities, as [`MonClient::ask`] does.
    pub async fn identities<T, F>(&self, call: impl Fn(CertClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_at(0, |channel| call(CertClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE))).await
    }

    /// Waits until every OSD that is up has an epoch; gives those that do not have it in time.
    pub async fn barrier(&self, epoch: u64, patience: Duration) -> Result<Vec<u32>, Status> {
        let started = Instant::now();
        loop {
            let left = patience.saturating_sub(started.elapsed());
            let patience_ms = u64::try_from(left.min(BARRIER_STEP).as_millis()).unwrap_or(u64::MAX);
            let ask = v1::BarrierRequest { epoch, patience_ms };
            let behind = self.ask(|mut stub| async move { stub.barrier(ask).await }).await?.behind;
            if behind.is_empty() || left <= BARRIER_STEP {
                return Ok(behind);
            }
        }
    }

    /// All of the state.
    pub async fn backup(&self) -> Result<Streaming<v1::BackupPart>, Status> {
        self.ask(|mut stub| async move { stub.backup(v1::BackupRequest {}).await }).await
    }

    /// Asks one monitor after the other until one answers or patience ends.
    async fn ask<T, F>(&self, call: impl Fn(Stub<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_at(0, |channel| call(stub(channel))).await
    }

    /// Begins with the monitor that many places after the one that answered last.
    async fn ask_at<T, F>(&self, places: usize, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let started = Instant::now();
        let mut pause = Duration::from_millis(20);
        let mut last = Status::new(Code::Unavailable, "no monitor is known: name one");
        // What a monitor said says more than the silence of another.
        let mut said = None;
        let fail = |said: Option<Status>, last: Status| {
            said.unwrap_or_else(|| match self.monitors.len() {
                0 | 1 => last,
                count => {
                    let Status { code, text } = last;
                    Status::new(
                        code,
                        format!("none of {count} monitors answers; `nacre mon status` asks each by itself ({text})"),
                    )
                }
            })
        };
        loop {
            let first = self.preferred.load(Ordering::Relaxed).wrapping_add(places);
            for turn in 0..self.monitors.len() {
                let index = first.wrapping_add(turn) % self.monitors.len();
                let Some((address, channel)) = self.monitors.get(index) else { continue };
                let patience = self.patience.saturating_sub(started.elapsed()).min(ATTEMPT);
                match tokio::time::timeout(patience, call(channel.clone())).await {
                    Ok(Ok(reply)) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(reply.into_inner());
                    }
                    Ok(Err(status)) => {
                        let answered = std::error::Error::source(&status).is_none();
                        let status = from_grpc(&status);
                        if status.code.retry() == Retry::Never {
                            return Err(status);
                        }
                        last = Status::new(status.code, format!("monitor at {address}: {}", status.text));
                        if answered {
                            said = Some(last.clone());
                        }
                    }
                    Err(_) => last = Status::new(Code::TimedOut, format!("monitor at {address} does not answer")),
                }
                if started.elapsed() >= self.patience {
                    return Err(fail(said, last));
                }
            }
            tokio::time::sleep(pause.min(self.patience.saturating_sub(started.elapsed()))).await;
            if started.elapsed() >= self.patience {
                return Err(fail(said, last));
            }
            pause = (pause * 2).min(Duration::from_millis(160));
        }
    }
}

fn stub(channel: Channel) -> Stub<Channel> {
    Stub::new(channel).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE)
}
