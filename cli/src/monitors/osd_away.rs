//! `nacre osd drain | replace`: the ways of an OSD out of the cluster, watched until they are done. Both can be broken off
//! and typed again: what they wait for is read from the cluster each time.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use nacre_maps::map::OsdFlags;
use nacre_maps::placement::Placement;
use nacre_maps::rules::osd_in;
use nacre_maps::rules::osd_safe::{Answer, safe_to_replace};
use nacre_mon_api::v1::command::Verb as Command;
use nacre_proto::ids::{OsdId, PgId, Stamp};
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{self, MapCommand};
use serde_json::json;

use super::Asking;
use super::osd_edit::osd;
use super::osd_safe::{all_safe, known, list};
use super::recovery::{Left, Pace};
use super::seen::Seen;
use super::span::{now_ms, span};
use crate::local::Connected;
use crate::output::{Bytes, Out, Progress, Span};
use crate::run::{Run, Verdict};

/// Between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
struct Waiting {
    /// Do not wait: it goes on by itself, and the same verb waits for it later.
    #[arg(long)]
    no_wait: bool,
    /// Wait at most so long, as in `2h`; ends with 1 if it is not done by then.
    #[arg(long, value_name = "TIME", value_parser = span)]
    timeout: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

/// Move all data off OSDs, and wait until nothing depends on them.
///
/// Takes them out, then shows how far their pgs are. Data keeps all its copies meanwhile. Typed again it goes on waiting.
#[derive(Args)]
#[command(after_long_help = "--json: {osds, drained, why, pgs_left, copies_left, bytes_left, seconds}")]
pub(super) struct Drain {
    /// The OSDs.
    #[arg(required = true, value_parser = osd)]
    osds: Vec<u32>,
    /// Also if pgs would find too few other OSDs and stay short of copies.
    #[arg(long)]
    force: bool,
    /// Say how much data would move, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Exchange the disk of an OSD: its number, weight and place stay.
///
/// The OSD must be stopped, and every pg of it whole on others. It is marked as destroyed, so that its old disk cannot come
/// back; then a new, empty store takes its number, and is filled. Typed again it goes on waiting.
#[derive(Args)]
#[command(
    after_long_help = "--json: {osd, state, why, copies_left, bytes_left, seconds}; state is waiting, filling or done."
)]
pub(super) struct Replace {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// Also if its disk may hold the only copy of something: that is given up.
    #[arg(long)]
    force: bool,
    /// Say whether it could begin now, and do nothing. All it holds is made anew on the new disk.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Watches what is left shrink: the line of a person's terminal, and now and then one for a log.
struct Watch {
    bar: Progress,
    pace: Pace,
    told: Instant,
}

/// How often a line is written where there is no terminal.
const LOG_LINE: Duration = Duration::from_secs(30);

impl Watch {
    fn new(what: &'static str) -> Watch {
        Watch { bar: Progress::new(what, 1), pace: Pace::new(), told: Instant::now() }
    }

    fn show(&mut self, left: Left, why: &str, json: bool, out: &mut Out) -> anyhow::Result<()> {
        self.pace.note(left, Instant::now());
        let (done, all) = self.pace.done();
        let shown = self.bar.set(done, all, &self.pace.text());
        if !shown && !json && self.told.elapsed() >= LOG_LINE {
            writeln!(out, "  {}; {why}", self.pace.text())?;
            out.flush()?;
            self.told = Instant::now();
        }
        Ok(())
    }
}

async fn change(connected: &Connected, verb: Map) -> anyhow::Result<String> {
    let verb = Command::Map(MapCommand { verb: Some(verb) });
    Ok(connected.monitors.execute(verb, false).await?.text)
}

/// Pgs that have all their copies' places now and would not without these OSDs.
fn starved(seen: &Seen, osds: &[OsdId]) -> anyhow::Result<Vec<(PgId, String)>> {
    let outcome = osd_in::out(seen.map(), osds, Stamp(now_ms()))?;
    let after = Placement::build(Arc::new(outcome.map_after(seen.map())))?;
    let places = |placement: &Placement, pg| {
        placement.mapped(pg).map_or(0, |set| set.iter().filter(|osd| osd.is_some()).count())
    };
    let starved = seen.placement.pgs().filter_map(|pg| {
        let (before, after) = (places(&seen.placement, pg), places(&after, pg));
        (after < before).then(|| (pg, format!("would find places for {after} of {before} copies")))
    });
    Ok(starved.collect())
}

impl Run for Drain {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let osds: Vec<OsdId> = self.osds.iter().map(|osd| OsdId(*osd)).collect();
        let asking = &self.waiting.asking;
        if self.dry_run {
            return asking.change(Map::OsdOut(v1::OsdOut { osds: self.osds }), true, out);
        }
        let seen = asking.seen()?;
        known(&seen, &self.osds)?;
        let within: Vec<OsdId> = osds.iter().copied().filter(|osd| seen.map().is_in(*osd)).collect();
        let starved = if self.force { Vec::new() } else { starved(&seen, &within)? };
        if !starved.is_empty() {
            let count = starved.len();
            let why = format!(
                "{count} pgs would stay short of copies, so this would never be done; add OSDs first, or exchange the disk with `nacre osd replace`, or repeat with --force"
            );
            if asking.json.json {
                out.json(&json!({ "osds": self.osds, "drained": false, "why": why }))?;
            } else {
                writeln!(out, "no: {why}")?;
                list(&starved, out)?;
            }
            return Ok(Verdict::Bad);
        }
        let connected = asking.connect()?;
        connected.runtime.block_on(self.carry_out(&connected, &osds, &within, out))
    }
}

impl Drain {
    async fn carry_out(
        &self,
        connected: &Connected,
        osds: &[OsdId],
        within: &[OsdId],
        out: &mut Out,
    ) -> anyhow::Result<Verdict> {
        let (json, began) = (self.waiting.asking.json.json, Instant::now());
        if !within.is_empty() {
            let out_now = v1::OsdOut { osds: within.iter().map(|osd| osd.0).collect() };
            let text = change(connected, Map::OsdOut(out_now)).await?;
            if !json {
                writeln!(out, "{text}: their pgs move to other OSDs")?;
                out.flush()?;
            }
        }
        let mut watch = Watch::new("drain");
        let (answer, left) = loop {
            let seen = Seen::now(connected).await?;
            let answer = all_safe(&seen, osds);
            let left = Left::of(&seen);
            let over = self.waiting.timeout.is_some_and(|ms| began.elapsed() >= Duration::from_millis(ms));
            if answer.yes || self.waiting.no_wait || over {
                break (answer, left);
            }
            watch.show(left, &answer.why, json, out)?;
            tokio::time::sleep(PAUSE).await;
        };
        drop(watch);
        self.tell(&answer, left, began.elapsed(), out)
    }

    fn tell(&self, answer: &Answer, left: Left, took: Duration, out: &mut Out) -> anyhow::Result<Verdict> {
        if self.waiting.asking.json.json {
            out.json(&json!({
                "osds": self.osds, "drained": answer.yes, "why": answer.why, "pgs_left": answer.against.len(),
                "copies_left": left.copies, "bytes_left": left.bytes, "seconds": took.as_secs_f64(),
            }))?;
        } else if answer.yes {
            let names: Vec<String> = self.osds.iter().map(|osd| format!("osd.{osd}")).collect();
            writeln!(out, "{} hold nothing that is needed after {}: {}", names.join(", "), Span(took), answer.why)?;
            writeln!(out, "  stop their daemons, then `nacre osd rm N`, or `nacre osd replace N` for a new disk")?;
        } else {
            writeln!(out, "not drained yet: {}", answer.why)?;
            writeln!(
                out,
                "  {} copies, {} still to be made; the same verb goes on waiting",
                left.copies,
                Bytes(left.bytes)
            )?;
        }
        Ok(if answer.yes || self.waiting.no_wait { Verdict::Good } else { Verdict::Bad })
    }
}

/// Where an OSD stands that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Destroyed, no new disk yet.
    Waiting,
    /// The new disk is up, and pgs are not all whole.
    Filling,
    /// Everything is where it belongs.
    Done,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Stage::Waiting => "waiting",
            Stage::Filling => "filling",
            Stage::Done => "done",
        }
    }
}

/// Where it stands, and why.
fn stage(seen: &Seen, osd: OsdId) -> (Stage, String) {
    let map = seen.map();
    if !map.is_up(osd) {
        return (Stage::Waiting, format!("{osd} waits for its new store"));
    }
    let stale =
        |pg: &PgId| seen.reports.pgs.get(pg).is_none_or(|report| report.epoch < map.epoch || !report.is_clean());
    match seen.placement.pgs().filter(stale).count() {
        0 => (Stage::Done, "all pgs are active and clean".to_owned()),
        count => (Stage::Filling, format!("{count} pgs are not clean yet")),
    }
}

impl Run for Replace {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let osd = OsdId(self.osd);
        let asking = &self.waiting.asking;
        let seen = asking.seen()?;
        known(&seen, &[self.osd])?;
        let destroyed = seen.map().osds.get(osd).is_some_and(|state| state.flags.contains(OsdFlags::DESTROYED));
        if !destroyed {
            if seen.map().is_up(osd) {
                anyhow::bail!(
                    "{osd} is up: stop its daemon first (`systemctl stop nacre-osd@{0}` on its host, or `nacre down osd.{0}`)",
                    osd.0
                );
            }
            let (_, answer) = asking.judge(|seen| safe_to_replace(&seen.placement, &seen.reports, osd))?;
            if !answer.yes && !self.force {
                if asking.json.json {
                    out.json(&json!({ "osd": osd.0, "state": "refused", "why": answer.why }))?;
                } else {
                    writeln!(out, "no: {}", answer.why)?;
                    list(&answer.against, out)?;
                }
                return Ok(Verdict::Bad);
            }
        }
        if self.dry_run {
            let destroy = v1::OsdDestroy { osd: osd.0, safe: false, force: self.force };
            return asking.change(Map::OsdDestroy(destroy), true, out);
        }
        let connected = asking.connect()?;
        connected.runtime.block_on(self.carry_out(&connected, osd, destroyed, out))
    }
}

impl Replace {
    async fn carry_out(
        &self,
        connected: &Connected,
        osd: OsdId,
        destroyed: bool,
        out: &mut Out,
    ) -> anyhow::Result<Verdict> {
        let (json, began) = (self.waiting.asking.json.json, Instant::now());
        if !destroyed {
            let destroy = v1::OsdDestroy { osd: osd.0, safe: false, force: self.force };
            let text = change(connected, Map::OsdDestroy(destroy)).await?;
            if !json {
                writeln!(out, "{text}")?;
                writeln!(
                    out,
                    "  exchange the disk, make an empty store on it (`nacre store format`; in a local cluster take"
                )?;
                writeln!(out, "  the old store away and `nacre restart {osd}`), and start the daemon")?;
                out.flush()?;
            }
        }
        let mut watch = Watch::new("fill");
        let (stage, why, left) = loop {
            let seen = Seen::now(connected).await?;
            let (stage, why) = stage(&seen, osd);
            let left = Left::of(&seen);
            let over = self.waiting.timeout.is_some_and(|ms| began.elapsed() >= Duration::from_millis(ms));
            if stage == Stage::Done || self.waiting.no_wait || over {
                break (stage, why, left);
            }
            watch.show(left, &why, json, out)?;
            tokio::time::sleep(PAUSE).await;
        };
        drop(watch);
        if json {
            out.json(&json!({
                "osd": osd.0, "state": stage.word(), "why": why, "copies_left": left.copies,
                "bytes_left": left.bytes, "seconds": began.elapsed().as_secs_f64(),
            }))?;
        } else if stage == Stage::Done {
            writeln!(out, "{osd} has its new disk, and {why}")?;
        } else {
            writeln!(out, "{why}; the same verb goes on waiting")?;
        }
        Ok(if stage == Stage::Done || self.waiting.no_wait { Verdict::Good } else { Verdict::Bad })
    }
}
