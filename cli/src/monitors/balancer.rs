//! `nacre balancer`: what the planners of the leading monitor see and would do; and one step by hand.

use std::io::Write;
use std::sync::Arc;

use clap::{Args, Subcommand};
use nacre_maps::ClusterMap;
use nacre_maps::placement::Placement;
use nacre_maps::plan::moved::{self, Moved};
use nacre_maps::plan::round::{Round, look};
use nacre_maps::rules::{Asker, Command, execute};
use nacre_proto::ids::Stamp;
use nacre_proto::v1::MapCommand;
use nacre_proto::v1::map_command::Verb as Map;
use serde_json::json;

use super::Asking;
use super::seen::Seen;
use super::span::now_ms;
use crate::output::{Bytes, Out};
use crate::run::{Run, Verdict};

/// See what the balancer and the automatic pg count would do, and why they wait.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Status(Status),
    Run(Once),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Status(verb) => verb.run(out),
            Verb::Run(verb) => verb.run(out),
        }
    }
}

const JSON: &str = "\
--json: {balancer, pg_count, waits, misplaced_percent, deviation, next, moves: [{pg, from, to}], moved: {pgs, copies, of,
bytes}, pools: [{pool, pgs, wants, why}]}; balancer and pg_count are on, off or dry-run; next is what happens in the next
step and null when there is nothing to gain; deviation is that of the worst OSD, in pgs.";

/// Say what the planners are set to, what they wait for, and what their next step would move.
///
/// They are set by `nacre config set balancer.mode` and `mon.pg.count`, to on, off or dry-run.
#[derive(Args)]
#[command(after_long_help = JSON)]
struct Status {
    #[command(flatten)]
    asking: Asking,
}

/// Let the balancer take one step now, whatever it is set to.
#[derive(Args)]
#[command(after_long_help = JSON)]
struct Once {
    /// Say what would move, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// What a command moves, by the map and what pgs hold.
fn moves(seen: &Seen, verb: &Map) -> anyhow::Result<Moved> {
    let command = Command::try_from(MapCommand { verb: Some(verb.clone()) })?;
    let asker = Asker { now: Stamp(now_ms()), who: String::new() };
    let next: ClusterMap = execute(seen.map(), &command, &asker)?.map_after(seen.map());
    let bytes = seen.reports.pgs.iter().map(|(pg, report)| (*pg, report.bytes)).collect();
    Ok(moved::between(&seen.placement, &Placement::build(Arc::new(next))?, &bytes))
}

fn tell(seen: &Seen, round: &Round, next: Option<(String, Map)>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let moved = match &next {
        Some((_, verb)) => moves(seen, verb)?,
        None => Moved::default(),
    };
    let items = match &next {
        Some((_, Map::UpmapItems(items))) => &items.pgs[..],
        _ => &[],
    };
    let lines = items.iter().flat_map(|pg| pg.pairs.iter().map(move |pair| (&pg.pg, pair.from, pair.to)));
    if json {
        let pools: Vec<_> = round
            .pools
            .iter()
            .map(|pool| json!({ "pool": pool.name, "pgs": pool.from, "wants": pool.to, "why": pool.why }))
            .collect();
        out.json(&json!({
            "balancer": round.balancer.word(), "pg_count": round.pg_count.word(), "waits": round.waits,
            "misplaced_percent": round.misplaced as f64 / 1e4, "deviation": round.balance.worst_before as f64 / 100.0,
            "next": next.as_ref().map(|(text, _)| text), "pools": pools,
            "moves": lines.map(|(pg, from, to)| json!({ "pg": pg, "from": from, "to": to })).collect::<Vec<_>>(),
            "moved": { "pgs": moved.pgs, "copies": moved.copies, "of": moved.of, "bytes": moved.bytes },
        }))?;
        return Ok(());
    }
    writeln!(out, "balancer {}, automatic pg count {}", round.balancer.word(), round.pg_count.word())?;
    if let Some(waits) = &round.waits {
        writeln!(out, "  waits: {waits}")?;
    }
    match &next {
        None => writeln!(
            out,
            "  nothing to gain: no OSD is further than {:.2} pgs from its share",
            round.balance.worst_before as f64 / 100.0
        )?,
        Some((text, _)) => {
            writeln!(out, "  next: {text}")?;
            writeln!(
                out,
                "  that moves {} of {} copies in {} pgs, {}",
                moved.copies,
                moved.of,
                moved.pgs,
                Bytes(moved.bytes)
            )?;
            for (pg, from, to) in lines {
                writeln!(out, "    pg {pg}: osd.{from} to osd.{to}")?;
            }
        }
    }
    Ok(())
}

impl Run for Status {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let seen = self.asking.settled()?;
        let round = look(&seen.placement, &seen.reports);
        // What is set to do nothing still says what it would do.
        let next = round.step().map(|step| (step.text, step.verb)).or_else(|| round.balancing());
        tell(&seen, &round, next, self.asking.json.json, out)?;
        Ok(Verdict::Good)
    }
}

impl Run for Once {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let seen = self.asking.settled()?;
        let round = look(&seen.placement, &seen.reports);
        let next = round.balancing();
        let verb = next.as_ref().map(|(_, verb)| verb.clone());
        if let (Some(waits), Some(_), false) = (&round.waits, &verb, self.dry_run) {
            anyhow::bail!("not now: {waits}; `--dry-run` says what would move");
        }
        tell(&seen, &round, next, self.asking.json.json, out)?;
        if let (Some(verb), false) = (verb, self.dry_run) {
            let connected = self.asking.connect()?;
            let verb = nacre_mon_api::v1::command::Verb::Map(MapCommand { verb: Some(verb) });
            connected.runtime.block_on(connected.monitors.execute(verb, false))?;
            if !self.asking.json.json {
                writeln!(out, "done: `nacre pg ls --unclean` shows it happen")?;
            }
        }
        Ok(Verdict::Good)
    }
}
