//! What the leading monitor does by itself: hears daemons, judges failure reports and health, and does what is due.
//!
//! What it hears lives in its memory alone. A new leader starts without and hears it again within a heartbeat; nothing
//! that must not be lost is kept here.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nacre_maps::health::{self, Health, MonReport, PgState, Reports};
use nacre_maps::map::PoolFlags;
use nacre_maps::placement::Placement;
use nacre_maps::plan::round::{self, Round};
use nacre_maps::rules::fence::barrier;
use nacre_maps::rules::osd_down::Failures;
use nacre_maps::rules::osd_safe::{Answer, safe_to_destroy, safe_to_replace};
use nacre_maps::rules::tick::next_due;
use nacre_maps::rules::usage::{OsdUsage, PoolUsage};
use nacre_maps::rules::{self, message};
use nacre_mon_api::v1;
use nacre_net::alarm::Alarm;
use nacre_proto::ids::{Epoch, MonId, OsdId, PoolId, Stamp};
use nacre_proto::v1 as v1cmd;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{FailureReply, FailureReports, MapCommand, OsdBeacon, OsdBeaconReply, OsdDown, OsdLoad, Tick};

use crate::node::{Elsewhere, Node, now_ms};
use crate::state::events::{AUDIT, CLUSTER};

/// How often the leader looks for what is due. What cannot wait is judged when it is heard.
const ROUND: Duration = Duration::from_secs(1);
/// How soon a new leader tries again to say that it leads. It can say nothing before a majority has answered it.
const AGAIN: Duration = Duration::from_millis(100);
/// How often who follows looks whether it leads, besides hearing of it.
const FOLLOWS: Duration = Duration::from_secs(5);
/// A member the leader has not heard of for this long takes no part in the quorum.
const SILENT: u64 = 2000;

/// Between two looks of the planners. What one of them did is known to all by then, and begun.
const PLANNING: Duration = Duration::from_secs(5);

/// Between two looks at who has reached a barrier's epoch.
const BARRIER_LOOK: Duration = Duration::from_millis(20);
/// How long a barrier is waited for at most.
const LONGEST_BARRIER: Duration = Duration::from_secs(60);

/// What daemons reported.
#[derive(Debug, Default)]
pub struct Heard {
    /// For health.
    pub reports: Reports,
    /// Failure reports that still stand.
    pub failures: Failures,
    /// The newest map each OSD is known to have.
    pub reached: BTreeMap<OsdId, Epoch>,
    /// When each OSD was heard last, and what clients have made it do.
    pub loads: BTreeMap<OsdId, (Stamp, OsdLoad)>,
}

/// How full the cluster is, by what OSDs report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
    /// Objects.
    pub objects: u64,
    /// Pgs by what they do.
    pub pgs: BTreeMap<String, u64>,
    /// Copies that are missing.
    pub degraded: u64,
    /// Copies that lie where they no longer should.
    pub misplaced: u64,
    /// Objects of which no copy is known.
    pub unfound: u64,
}

/// What a pg does, in words.
fn state_words(state: PgState) -> String {
    let words: Vec<String> = state.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    if words.is_empty() { "unknown".into() } else { words.join("+") }
}

impl Node {
    /// Whether this monitor leads; where to go if not.
    pub(crate) async fn leads(&self) -> Result<(), Elsewhere> {
        if self.raft.is_leader() {
            return Ok(());
        }
        match self.leader().await {
            Some((node, member)) if node != self.identity.node => Err(Elsewhere::Leader(node, member)),
            _ => Err(Elsewhere::Failed(self.nobody_leads())),
        }
    }

    /// An OSD lives.
    pub async fn beacon(&self, beacon: OsdBeacon) -> Result<OsdBeaconReply, Elsewhere> {
        self.leads().await?;
        let (osd, incarnation, now) = (OsdId(beacon.osd), beacon.incarnation, Stamp(now_ms()));
        let reached = Epoch(beacon.epoch);
        let map = self.hub.map();
        let up = map.osds.get(osd).is_some_and(|state| state.is_up() && state.incarnation.0 == incarnation);
        let load = beacon.load.clone().unwrap_or_default();
        let (report, pgs) = message::beacon(beacon).map_err(|error| error.status())?;
        if up {
            let usage = OsdUsage { osd, used: report.used, total: report.total };
            if !rules::usage::note(&map, &[usage], &[], now).increments.is_empty() {
                let osds = vec![v1cmd::OsdUsage { osd: osd.0, used_bytes: usage.used, total_bytes: usage.total }];
                self.propose(Map::Usage(v1cmd::Usage { osds, pools: Vec::new() })).await;
            }
            let mut heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            heard.reports.osds.insert(osd, report);
            heard.reached.insert(osd, reached);
            heard.loads.insert(osd, (now, load));
            for (pg, mut report) in pgs {
                report.at = now;
                heard.reports.pgs.insert(pg, report);
            }
        }
        Ok(OsdBeaconReply { epoch: map.epoch.0, boot_again: !up })
    }

    /// An OSD cannot reach others.
    pub async fn report_failures(&self, reports: &FailureReports) -> Result<FailureReply, Elsewhere> {
        self.leads().await?;
        let (failed, alive) = message::failures(reports, Stamp(now_ms()));
        {
            let mut heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            for report in failed {
                heard.failures.report(report);
            }
            for target in alive {
                heard.failures.withdraw(target, OsdId(reports.reporter));
            }
        }
        self.judge().await;
        Ok(FailureReply { epoch: self.hub.map().epoch.0 })
    }

    /// Writes into a command what the leader alone knows, from what daemons report to it. What the sender says there is
    /// not believed. Gives what the sender should know if the command is refused for it.
    pub(crate) fn fill_in(&self, command: &mut v1::Command) -> Option<String> {
        let Some(v1::command::Verb::Map(MapCommand { verb: Some(verb) })) = &mut command.verb else { return None };
        match verb {
            Map::OsdRemove(remove) => {
                let (safe, why) = self.is_safe(safe_to_destroy, OsdId(remove.osd));
                remove.safe = safe;
                return Some(why);
            }
            Map::OsdDestroy(destroy) => {
                let (safe, why) = self.is_safe(safe_to_replace, OsdId(destroy.osd));
                destroy.safe = safe;
                return Some(why);
            }
            Map::Mute(mute) => {
                let (health, _) = self.health();
                let raised = health.checks.iter().find(|check| check.name == mute.check);
                mute.count = raised.map_or(0, |check| check.count);
            }
            _ => {}
        }
        None
    }

    fn is_safe(&self, asks: fn(&Placement, &Reports, OsdId) -> Answer, osd: OsdId) -> (bool, String) {
        match Placement::build(self.hub.map()) {
            Ok(placement) => {
                let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = asks(&placement, &heard.reports, osd);
                (answer.yes, answer.why)
            }
            Err(error) => (false, error.to_string()),
        }
    }

    /// Forgets what was said of pgs and OSDs that are no more.
    fn prune_reports(&self) {
        let map = self.hub.map();
        let mut heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        heard.reports.pgs.retain(|pg, _| map.pool_of(*pg).is_some());
        heard.reports.osds.retain(|osd, _| map.osds.get(*osd).is_some());
        heard.reached.retain(|osd, _| map.osds.get(*osd).is_some());
        heard.loads.retain(|osd, _| map.osds.get(*osd).is_some());
    }

    /// What OSDs said, beside the map it is to be read with.
    pub async fn reports(&self) -> Result<v1::ReportsReply, Elsewhere> {
        self.linearize().await?;
        let (health, _) = self.health();
        let (map, now) = (self.hub.map(), Stamp(now_ms()));
        let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let up = heard.reports.osds.iter().filter(|(osd, _)| map.is_up(**osd));
        let osds = up
            .map(|(osd, report)| {
                let (at, load) = heard.loads.get(osd).cloned().unwrap_or_default();
                v1::OsdHeard {
                    osd: osd.0,
                    ago_ms: u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX),
                    epoch: heard.reached.get(osd).copied().unwrap_or_default().0,
                    used_bytes: report.used,
                    total_bytes: report.total,
                    slow_ops: report.slow_ops,
                    slow_why: report.slow_why.clone(),
                    disk_errors: report.disk_errors,
                    load: Some(load),
                }
            })
            .collect();
        let pgs = heard.reports.pgs.iter().map(|(pg, report)| report.message(*pg)).collect();
        let health = Some(health.message());
        Ok(v1::ReportsReply { epoch: map.epoch.0, map: self.hub.full(), osds, pgs, health })
    }

    /// The OSDs that are up and not known to have `epoch`, as soon as there are none or the time is over.
    pub async fn barrier(&self, epoch: Epoch, patience: Duration) -> Result<Vec<OsdId>, Elsewhere> {
        self.linearize().await?;
        let until = tokio::time::Instant::now() + patience.min(LONGEST_BARRIER);
        loop {
            let behind = {
                let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
                barrier(&self.hub.map(), &heard.reached, epoch)
            };
            if behind.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(behind);
            }
            tokio::time::sleep(BARRIER_LOOK).await;
            // What this monitor heard counts only while it leads.
            self.leads().await?;
        }
    }

    /// Marks down whom the reports suffice for.
    async fn judge(&self) {
        let verdict = {
            let mut heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let verdict = heard.failures.judge(&self.hub.map(), Stamp(now_ms()));
            heard.reports.failures = verdict.clone();
            verdict
        };
        for (osds, dead) in [(verdict.silent, false), (verdict.dead, true)] {
            if !osds.is_empty() {
                let osds = osds.iter().map(|osd| osd.0).collect();
                self.propose(Map::OsdDown(OsdDown { osds, dead })).await;
            }
        }
    }

    /// Marks pools whose quota is used up, and those whose quota is not any more.
    async fn watch_quotas(&self) {
        let map = self.hub.map();
        let limited = |pool: &PoolId| {
            map.pools.get(pool).is_some_and(|pool| {
                pool.quota_bytes > 0 || pool.quota_objects > 0 || pool.flags.contains(PoolFlags::QUOTA_FULL)
            })
        };
        let mut used: BTreeMap<PoolId, PoolUsage> = BTreeMap::new();
        {
            let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            for (pg, report) in heard.reports.pgs.iter().filter(|(pg, _)| limited(&pg.pool)) {
                let pool = used.entry(pg.pool).or_insert(PoolUsage { pool: pg.pool, bytes: 0, objects: 0 });
                pool.bytes = pool.bytes.saturating_add(report.bytes);
                pool.objects = pool.objects.saturating_add(report.objects);
            }
        }
        let used: Vec<PoolUsage> = used.into_values().collect();
        if !rules::usage::note(&map, &[], &used, Stamp(now_ms())).increments.is_empty() {
            let pool = |u: PoolUsage| v1cmd::PoolUsage { pool: u.pool.0, bytes: u.bytes, objects: u.objects };
            let pools = used.into_iter().map(pool).collect();
            self.propose(Map::Usage(v1cmd::Usage { osds: Vec::new(), pools })).await;
        }
    }

    /// Has the quorum do something nobody asked for.
    async fn propose(&self, verb: Map) {
        self.propose_any(v1::command::Verb::Map(MapCommand { verb: Some(verb) })).await;
    }

    /// Writes a line into the cluster log.
    async fn note(&self, text: String) {
        self.propose_any(v1::command::Verb::Note(cluster_note(text))).await;
    }

    /// Writes down that this monitor leads, under a session of that leadership's own: however often that takes, it is
    /// written once. Whether the quorum has it.
    async fn announce(&self, session: u64, term: u64) -> bool {
        let note = cluster_note(format!("mon.{} leads in term {term}", self.identity.mon));
        self.propose_in(session, format!("mon.{}", self.identity.mon), v1::command::Verb::Note(note)).await
    }

    /// Writes a line into the audit: what somebody had the quorum do that is no command.
    pub(crate) async fn audit(&self, who: &str, text: String) {
        let note = v1::Note { channel: AUDIT.into(), level: "info".into(), text };
        self.propose_as(who.to_owned(), v1::command::Verb::Note(note)).await;
    }

    async fn propose_any(&self, verb: v1::command::Verb) {
        self.propose_as(format!("mon.{}", self.identity.mon), verb).await;
    }

    async fn propose_as(&self, who: String, verb: v1::command::Verb) {
        // Asked once and by nobody else: a session of its own.
        self.propose_in(rand::random::<u64>().max(1), who, verb).await;
    }

    /// Whether it was answered, be it with a refusal.
    async fn propose_in(&self, session: u64, who: String, verb: v1::command::Verb) -> bool {
        let request = v1::ExecuteRequest {
            session,
            sequence: 1,
            command: Some(v1::Command { verb: Some(verb) }),
            dry_run: false,
        };
        match self.execute(who, &request).await {
            Ok(reply) if reply.code != 0 => tracing::warn!(text = reply.text, "a proposal of the leader was refused"),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(?error, "a proposal of the leader came to nothing");
                return false;
            }
        }
        true
    }

    /// How the cluster is, by the map and by what was heard here.
    pub fn health(&self) -> (Health, Usage) {
        use openraft::Instant;
        use openraft::async_runtime::WatchReceiver;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let silence = metrics.heartbeat.clone().unwrap_or_default();
        let mut reports = {
            let heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            heard.reports.clone()
        };
        for (node, member) in metrics.membership_config.membership().nodes() {
            let here = *node == self.identity.node;
            let heard = silence.get(node).and_then(|heard| heard.as_ref()).map(|heard| heard.elapsed().as_millis());
            let in_quorum = here || heard.is_some_and(|silent| silent < u128::from(SILENT));
            reports.mons.insert(MonId(member.mon), MonReport { in_quorum, ..MonReport::default() });
        }
        let health = health::check(&self.hub.map(), &reports, Stamp(now_ms()));
        let mut usage = Usage {
            used: reports.osds.values().map(|osd| osd.used).sum(),
            total: reports.osds.values().map(|osd| osd.total).sum(),
            ..Usage::default()
        };
        for pg in reports.pgs.values() {
            usage.objects += pg.objects;
            usage.degraded += pg.degraded;
            usage.misplaced += pg.misplaced;
            usage.unfound += pg.unfound;
            *usage.pgs.entry(state_words(pg.state)).or_default() += 1;
        }
        (health, usage)
    }

    /// What the planners would do now.
    async fn planned(&self) -> Option<Round> {
        let map = self.hub.map();
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner).reports.clone();
        // Much to think about in a large cluster, and this thread has heartbeats to answer.
        let thought = tokio::task::spawn_blocking(move || match Placement::build(map) {
            Ok(placement) => Some(round::look(&placement, &reports)),
            Err(error) => {
                tracing::error!(%error, "the planners cannot place the pools of the map");
                None
            }
        });
        thought.await.ok().flatten()
    }

    /// Takes the planners' next step, if there is one. `said` is what was said last, so that a dry run says it once.
    async fn run_planners(&self, said: &mut String) {
        let Some(step) = self.planned().await.and_then(|round| round.step()) else { return };
        if step.carry_out {
            said.clear();
            self.note(step.text).await;
            self.propose(step.verb).await;
        } else if *said != step.text {
            self.note(format!("dry run: {}", step.text)).await;
            *said = step.text;
        }
    }

    fn forget_reports(&self) {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
    }
}

fn cluster_note(text: String) -> v1::Note {
    v1::Note { channel: CLUSTER.into(), level: "info".into(), text }
}

/// Does what is due, while this monitor leads.
pub async fn plan(node: Arc<Node>) {
    use openraft::async_runtime::WatchReceiver;
    // The term in which it leads, the session in which it says so, and whether it has.
    let (mut led, mut session, mut announced) = (None, 0, false);
    let (mut planned, mut pruned, mut said) = (tokio::time::Instant::now(), 0, String::new());
    let (clock, mut news) = (Alarm::new(), node.raft.server_metrics());
    loop {
        clock.set(match led {
            None => FOLLOWS,
            Some(_) if announced => ROUND,
            Some(_) => AGAIN,
        });
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = clock.rang() => {}
        }
        // What is watched is what is read: openraft publishes its other metrics later.
        let leads = news.borrow_watched().state == openraft::ServerState::Leader;
        let leads = leads.then(|| node.term());
        if led != leads {
            // A leadership of another term is another one, and knows nothing of what the one before it heard.
            if led.is_some() {
                node.forget_reports();
            }
            (led, session, announced) = (leads, rand::random::<u64>().max(1), false);
            // A new leader hears everybody first.
            planned = tokio::time::Instant::now();
        }
        let Some(term) = leads else { continue };
        if !announced {
            announced = node.announce(session, term).await;
            continue;
        }
        let now = Stamp(now_ms());
        if next_due(&node.hub.map(), now).is_some_and(|due| due <= now) {
            node.propose(Map::Tick(Tick {})).await;
        }
        let epoch = node.hub.epoch();
        if pruned != epoch {
            pruned = epoch;
            node.prune_reports();
        }
        node.judge().await;
        node.watch_quotas().await;
        if planned.elapsed() >= PLANNING {
            node.run_planners(&mut said).await;
            planned = tokio::time::Instant::now();
        }
    }
}
