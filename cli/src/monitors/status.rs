//! `nacre status`: the first page an operator sees.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use nacre_maps::ClusterMap;
use nacre_mon_api::v1;

use super::Asking;
use super::health::tone;
use crate::output::{Bytes, Out, Tone};
use crate::run::{Run, Verdict};

/// Say how the cluster is: health with causes, quorum, OSDs, pools, usage, activity.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, fsid, health, checks: [{name, severity, cause, todo}], epoch, leader, term, monitors: [{name, address,
votes, silent_ms}], osds: {known, up, in}, pools, pgs, pg_states: {state: count}, used_bytes, total_bytes, objects,
degraded, misplaced, unfound, flags: [{flag, target, until_ms}]}")]
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
                "pg_states": status.pgs.iter().map(|pgs| (pgs.state.clone(), pgs.count)).collect::<BTreeMap<_, _>>(),
                "degraded": status.degraded, "misplaced": status.misplaced, "unfound": status.unfound,
                "flags": map.flags.iter().map(|((flag, target), state)| serde_json::json!({
                    "flag": flag.to_string(), "target": target.to_string(), "until_ms": state.until.map(|until| until.0),
                })).collect::<Vec<_>>(),
            }))?;
            return Ok(Verdict::Good);
        }
        let tone = tone(&health.status);
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
        let (used, total) = (Bytes(status.used_bytes), Bytes(status.total_bytes));
        writeln!(out, "  usage     {used} of {total}, {} objects", status.objects)?;
        let states: Vec<String> = status.pgs.iter().map(|pgs| format!("{} {}", pgs.count, pgs.state)).collect();
        let silent = pgs.saturating_sub(status.pgs.iter().map(|pgs| pgs.count).sum());
        let silent = (silent > 0).then(|| format!("{silent} not reported"));
        let activity: Vec<String> = states.into_iter().chain(silent).collect();
        if !activity.is_empty() {
            writeln!(out, "  activity  {}", activity.join(", "))?;
        }
        let copies = [(status.degraded, "missing"), (status.misplaced, "to be moved")];
        let copies: Vec<String> =
            copies.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !copies.is_empty() {
            writeln!(out, "            copies of objects: {}", copies.join(", "))?;
        }
        if status.unfound > 0 {
            writeln!(out, "            {} objects of which no copy is found", status.unfound)?;
        }
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
