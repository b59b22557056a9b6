//! What the leading monitor does by itself: hears daemons, judges failure reports and health, and does what is due.
//!
//! What it hears lives in its memory alone. A new leader starts without and hears it again within a heartbeat; nothing
//! that must not be lost is kept here.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nacre_maps::health::{self, Health, MonReport, Reports};
use nacre_maps::map::PoolFlags;
use nacre_maps::rules::osd_down::Failures;
use nacre_maps::rules::tick::next_due;
use nacre_maps::rules::usage::{OsdUsage, PoolUsage};
use nacre_maps::rules::{self, message};
use nacre_mon_api::v1;
use nacre_proto::ids::{MonId, OsdId, PoolId, Stamp};
use nacre_proto::v1 as v1cmd;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{FailureReply, FailureReports, MapCommand, OsdBeacon, OsdBeaconReply, OsdDown, Tick};

use crate::node::{Elsewhere, Node, now_ms};

/// How often the leader looks for what is due.
const ROUND: Duration = Duration::from_millis(250);
/// A member the leader has not heard of for this long takes no part in the quorum.
const SILENT: u64 = 2000;

/// What daemons reported.
#[derive(Debug, Default)]
pub struct Heard {
    /// For health.
    pub reports: Reports,
    /// Failure reports that still stand.
    pub failures: Failures,
}

/// How full the cluster is, by what OSDs report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
    /// Objects.
    pub objects: u64,
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
        let map = self.hub.map();
        let up = map.osds.get(osd).is_some_and(|state| state.is_up() && state.incarnation.0 == incarnation);
        let (report, pgs) = message::beacon(beacon).map_err(|error| error.status())?;
        if up {
            let usage = OsdUsage { osd, used: report.used, total: report.total };
            if !rules::usage::note(&map, &[usage], &[], now).increments.is_empty() {
                let osds = vec![v1cmd::OsdUsage { osd: osd.0, used_bytes: usage.used, total_bytes: usage.total }];
                self.propose(Map::Usage(v1cmd::Usage { osds, pools: Vec::new() })).await;
            }
            let mut heard = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            heard.reports.osds.insert(osd, report);
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
        let map = v1::command::Verb::Map(MapCommand { verb: Some(verb) });
        let request = v1::ExecuteRequest {
            // Asked once and by nobody else: a session of its own.
            session: rand::random::<u64>().max(1),
            sequence: 1,
            command: Some(v1::Command { verb: Some(map) }),
            dry_run: false,
        };
        match self.execute(format!("mon.{}", self.identity.mon), &request).await {
            Ok(reply) if reply.code != 0 => tracing::warn!(text = reply.text, "a proposal of the leader was refused"),
            Ok(_) => {}
            Err(error) => tracing::debug!(?error, "a proposal of the leader came to nothing"),
        }
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
        let usage = Usage {
            used: reports.osds.values().map(|osd| osd.used).sum(),
            total: reports.osds.values().map(|osd| osd.total).sum(),
            objects: reports.pgs.values().map(|pg| pg.objects).sum(),
        };
        (health, usage)
    }

    fn forget_reports(&self) {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
    }
}

/// Does what is due, while this monitor leads.
pub async fn plan(node: Arc<Node>) {
    let mut led = false;
    loop {
        tokio::time::sleep(ROUND).await;
        let leads = node.raft.is_leader();
        if led && !leads {
            node.forget_reports();
        }
        led = leads;
        if !leads {
            continue;
        }
        let now = Stamp(now_ms());
        if next_due(&node.hub.map(), now).is_some_and(|due| due <= now) {
            node.propose(Map::Tick(Tick {})).await;
        }
        node.judge().await;
        node.watch_quotas().await;
    }
}
