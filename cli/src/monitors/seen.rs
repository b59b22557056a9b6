//! The map together with what OSDs report, as verbs that judge by both need it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nacre_maps::ClusterMap;
use nacre_maps::health::{OsdReport, Reports};
use nacre_maps::placement::Placement;
use nacre_maps::rules::message::pg_report;
use nacre_maps::rules::osd_safe::Answer;
use nacre_mon_api::v1;
use nacre_proto::ids::OsdId;
use nacre_proto::v1::Health;

use super::Asking;
use crate::local::Connected;

/// A leader that was just elected has heard nothing yet: how long a verb waits for what OSDs say each second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// The cluster at a moment.
pub(super) struct Seen {
    /// Where everything is, with the map.
    pub(super) placement: Placement,
    /// What was said of pgs and OSDs.
    pub(super) reports: Reports,
    /// More of what OSDs said.
    pub(super) heard: BTreeMap<OsdId, v1::OsdHeard>,
    /// What is wrong.
    pub(super) health: Health,
}

impl Seen {
    fn of(reply: v1::ReportsReply) -> anyhow::Result<Seen> {
        let placement = Placement::build(Arc::new(ClusterMap::decode(&reply.map)?))?;
        let mut reports = Reports::default();
        for pg in reply.pgs {
            let (pg, report) = pg_report(pg)?;
            reports.pgs.insert(pg, report);
        }
        let heard: BTreeMap<OsdId, v1::OsdHeard> = reply.osds.into_iter().map(|osd| (OsdId(osd.osd), osd)).collect();
        for (osd, said) in &heard {
            let report = OsdReport {
                used: said.used_bytes,
                total: said.total_bytes,
                slow_ops: said.slow_ops,
                slow_why: said.slow_why.clone(),
                disk_errors: said.disk_errors,
            };
            reports.osds.insert(*osd, report);
        }
        Ok(Seen { placement, reports, heard, health: reply.health.unwrap_or_default() })
    }

    /// As it is now, whoever has reported.
    pub(super) async fn now(connected: &Connected) -> anyhow::Result<Seen> {
        Seen::of(connected.monitors.reports().await?)
    }

    pub(super) fn map(&self) -> &ClusterMap {
        self.placement.map()
    }

    /// Whether all OSDs that are up have reported, and all pgs that have a primary.
    fn is_whole(&self) -> bool {
        let heard = self.map().up_osds().all(|osd| self.heard.contains_key(&osd));
        let led = |pg| self.placement.pg(pg).is_some_and(|at| at.acting_primary.is_some());
        heard && self.placement.pgs().all(|pg| self.reports.pgs.contains_key(&pg) || !led(pg))
    }
}

impl Asking {
    /// The cluster when everybody who is up has been heard; what is there after some seconds if that does not come.
    pub(super) fn seen(&self) -> anyhow::Result<Seen> {
        let connected = self.connect()?;
        connected.runtime.block_on(async {
            let until = Instant::now() + PATIENCE;
            loop {
                let seen = Seen::now(&connected).await?;
                if seen.is_whole() || Instant::now() >= until {
                    return Ok(seen);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    /// The cluster when all pgs that are led were reported under the newest map too.
    pub(super) fn settled(&self) -> anyhow::Result<Seen> {
        let connected = self.connect()?;
        connected.runtime.block_on(async {
            let until = Instant::now() + PATIENCE;
            loop {
                let seen = Seen::now(&connected).await?;
                let newest = seen.map().epoch;
                if seen.is_whole() && seen.reports.pgs.values().all(|report| report.epoch >= newest)
                    || Instant::now() >= until
                {
                    return Ok(seen);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    /// Asks until the answer does not wait for reports that are under way.
    pub(super) fn judge(&self, judge: impl Fn(&Seen) -> Answer) -> anyhow::Result<(Seen, Answer)> {
        let connected = self.connect()?;
        connected.runtime.block_on(async {
            let until = Instant::now() + PATIENCE;
            loop {
                let seen = Seen::now(&connected).await?;
                let answer = judge(&seen);
                if answer.yes || !answer.soon || Instant::now() >= until {
                    return Ok((seen, answer));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}
