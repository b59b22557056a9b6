//! `nacre status`: the first page an operator sees.

use std::io::Write;

use clap::Args;
use nacre_maps::ClusterMap;
use nacre_mon_api::v1;

use super::Asking;
use crate::output::{Out, Tone};
use crate::run::{Run, Verdict};

/// Say how the cluster is: health with causes, quorum, OSDs, pools, usage.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, fsid, health, checks: [{name, severity, cause, todo}], epoch, leader, term, monitors: [{name, address,
votes, silent_ms}], osds: {known, up, in}, pools, pgs, used_bytes, total_bytes, objects}")]
pub(crate) struct Status {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Status {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let status = connected.runtime.block_on(connected.monitors.status(false))?;
        let map = ClusterMap::decode(&status.map)?;
        let health = status.health.clone().unwrap_or_default();
        let osds =
            (map.osds.iter().count(), map.up_osds().count(), map.osds.iter().filter(|(_, osd)| osd.is_in()).count());
        let pgs: u64 = map.pools.values().map(|pool| u64::from(pool.pg_num)).sum();
        let name = |node: u64| {
            let member = status.members.iter().find(|member| member.node == node);
            member.map_or_else(|| format!("node {node:x}"), |member| format!("mon.{}", member.mon))
        };
        if self.asking.json.json {
            let checks: Vec<_> = health
                .checks
                .iter()
                .map(|check| serde_json::json!({ "name": check.name, "severity": check.severity, "cause": check.cause, "todo": check.todo }))
                .collect();
            out.json(&serde_json::json!({
                "cluster": connected.cluster, "fsid": status.fsid, "health": health.status, "checks": checks,
                "epoch": status.epoch, "leader": status.leader.map(name), "term": status.term,
                "monitors": members(&status), "osds": { "known": osds.0, "up": osds.1, "in": osds.2 },
                "pools": map.pools.iter().count(), "pgs": pgs, "used_bytes": status.used_bytes,
                "total_bytes": status.total_bytes, "objects": status.objects,
            }))?;
            return Ok(Verdict::Good);
        }
        let tone = match health.status.as_str() {
            "ok" => Tone::Good,
            "warning" => Tone::Warn,
            _ => Tone::Bad,
        };
        writeln!(out, "cluster {} ({})", out.paint(Tone::Strong, &connected.cluster), status.fsid)?;
        writeln!(out, "  health    {}", out.paint(tone, &health.status))?;
        for check in health.checks.iter().filter(|check| !check.muted) {
            writeln!(out, "            {}: {}", check.name, check.cause)?;
            writeln!(out, "              {}", check.todo)?;
        }
        let voters: Vec<String> =
            status.members.iter().filter(|member| member.voter).map(|member| name(member.node)).collect();
        let leader = status.leader.map_or_else(|| "nobody".into(), name);
        writeln!(
            out,
            "  quorum    {} votes: {}; {leader} leads in term {}",
            voters.len(),
            voters.join(", "),
            status.term
        )?;
        writeln!(out, "  map       epoch {}", status.epoch)?;
        writeln!(out, "  osds      {} known, {} up, {} in", osds.0, osds.1, osds.2)?;
        writeln!(out, "  pools     {} with {pgs} pgs", map.pools.iter().count())?;
        writeln!(out, "  usage     {} of {} bytes, {} objects", status.used_bytes, status.total_bytes, status.objects)?;
        Ok(Verdict::Good)
    }
}

/// The monitors, for `--json`.
pub(super) fn members(status: &v1::StatusReply) -> Vec<serde_json::Value> {
    status
        .members
        .iter()
        .map(|member| {
            serde_json::json!({
                "name": format!("mon.{}", member.mon), "address": member.address, "votes": member.voter,
                "silent_ms": member.silent_ms, "matched": member.matched, "node": format!("{:x}", member.node),
            })
        })
        .collect()
}
