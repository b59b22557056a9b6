//! `nacre top`: what clients do, how fast, and what recovery has still to do; drawn again and again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use nacre_maps::ClusterMap;
use nacre_proto::ids::OsdId;
use nacre_proto::v1::{OpLoad, OsdLoad};
use serde_json::json;

use super::Asking;
use super::health::tone;
use super::recovery::{Left, Pace};
use super::seen::Seen;
use super::span::{moment, now_ms};
use crate::output::{Align, Bytes, Micros, Out, Table, Tone, bar, share};
use crate::run::{Run, Verdict};

/// Show live what clients do, how fast each OSD answers, and how far recovery is.
///
/// The slowest OSDs come first. Ends with Ctrl-C.
#[derive(Args)]
#[command(after_long_help = "\
--json: one object in a line for each look: {at_ms, health, epoch, reads, writes, in_flight, recovery: {pgs, copies,
bytes, bytes_s, seconds_left}, pg_states: {state: count}, osds: [{osd, up, in, used_bytes, total_bytes, reads, writes,
in_flight, slow_ops, slow_why}]}, where reads and writes are {ops_s, bytes_s, p50_us, p99_us}; latencies are upper bounds
by powers of two, null without operations; seconds_left is null while there is no pace.")]
pub(crate) struct Top {
    /// Look once and end: what happened within one interval.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// So many OSDs at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    asking: Asking,
}

/// Operations of one kind within a time.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rate {
    ops_s: f64,
    bytes_s: f64,
    latency: Vec<u64>,
}

impl Rate {
    fn between(before: &OpLoad, after: &OpLoad, seconds: f64) -> Rate {
        let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let was = |n: usize| before.latency.get(n).copied().unwrap_or(0);
        Rate {
            ops_s: per_second(before.ops, after.ops),
            bytes_s: per_second(before.bytes, after.bytes),
            latency: after.latency.iter().enumerate().map(|(n, count)| count.saturating_sub(was(n))).collect(),
        }
    }

    fn add(&mut self, other: &Rate) {
        self.ops_s += other.ops_s;
        self.bytes_s += other.bytes_s;
        self.latency.resize(self.latency.len().max(other.latency.len()), 0);
        for (sum, count) in self.latency.iter_mut().zip(&other.latency) {
            *sum += count;
        }
    }

    /// Microseconds that this share of operations did not exceed: the bound of the bucket it falls into.
    fn quantile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.latency.iter().sum();
        let wanted = (all as f64 * share).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (n, count) in self.latency.iter().enumerate() {
            sum += count;
            if sum >= wanted && all > 0 {
                return Some(1u64 << n.min(63));
            }
        }
        None
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "ops_s": self.ops_s, "bytes_s": self.bytes_s, "p50_us": self.quantile(0.5), "p99_us": self.quantile(0.99),
        })
    }
}

/// Of one OSD.
#[derive(Clone, Debug, Default, PartialEq)]
struct Work {
    reads: Rate,
    writes: Rate,
    in_flight: u64,
}

impl Work {
    /// Nothing if nothing can be said: it reports no counts, or has begun anew.
    fn between(before: &OsdLoad, after: &OsdLoad) -> Option<Work> {
        let seconds = after.up_ms.checked_sub(before.up_ms).filter(|ms| *ms > 0)? as f64 / 1e3;
        let rate = |before: &Option<OpLoad>, after: &Option<OpLoad>| {
            let none = OpLoad::default();
            Rate::between(before.as_ref().unwrap_or(&none), after.as_ref().unwrap_or(&none), seconds)
        };
        Some(Work {
            reads: rate(&before.reads, &after.reads),
            writes: rate(&before.writes, &after.writes),
            in_flight: after.in_flight,
        })
    }

    fn slowest(&self) -> u64 {
        self.reads.quantile(0.99).max(self.writes.quantile(0.99)).unwrap_or(0)
    }

    fn add(&mut self, other: &Work) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.in_flight += other.in_flight;
    }
}

/// What is known from look to look.
#[derive(Default)]
struct Looks {
    loads: BTreeMap<OsdId, OsdLoad>,
    work: BTreeMap<OsdId, Work>,
}

impl Looks {
    /// True once every OSD that is heard has been heard twice.
    fn take(&mut self, seen: &Seen) -> bool {
        self.loads.retain(|osd, _| seen.heard.contains_key(osd));
        self.work.retain(|osd, _| seen.heard.contains_key(osd));
        for (osd, heard) in &seen.heard {
            let load = heard.load.clone().unwrap_or_default();
            match self.loads.get(osd) {
                // It has said nothing new: what was known stands.
                Some(before) if before.up_ms == load.up_ms => continue,
                Some(before) => match Work::between(before, &load) {
                    Some(work) => drop(self.work.insert(*osd, work)),
                    None => drop(self.work.remove(osd)),
                },
                None => {}
            }
            self.loads.insert(*osd, load);
        }
        seen.heard.keys().all(|osd| self.work.contains_key(osd))
    }
}

impl Run for Top {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let every = Duration::from_secs(self.interval);
        let redraw = std::io::stdout().is_terminal() && !self.once && !self.asking.json.json;
        let (mut looks, mut pace) = (Looks::default(), Pace::new());
        let began = Instant::now();
        connected.runtime.block_on(async {
            loop {
                let looked = Instant::now();
                let seen = Seen::now(&connected).await?;
                let whole = looks.take(&seen);
                pace.note(Left::of(&seen), looked);
                // The first look knows no rates. One that is looked at alone waits for them, yet not for ever.
                let ready =
                    looked.duration_since(began) >= every && (whole || looked.duration_since(began) >= every * 4);
                if ready || (redraw && !looks.loads.is_empty()) {
                    if self.asking.json.json {
                        let line = serde_json::to_string(&self.json(&seen, &looks, &pace))?;
                        writeln!(out, "{line}")?;
                    } else {
                        self.draw(&connected.cluster, &seen, &looks, &pace, redraw, out)?;
                    }
                    out.flush()?;
                    if self.once {
                        return Ok(Verdict::Good);
                    }
                }
                let pause = if ready { every } else { every.min(Duration::from_millis(500)) };
                tokio::time::sleep(pause).await;
            }
        })
    }
}

fn sum(looks: &Looks) -> Work {
    let mut sum = Work::default();
    looks.work.values().for_each(|work| sum.add(work));
    sum
}

fn states(seen: &Seen) -> BTreeMap<String, u64> {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for report in seen.reports.pgs.values() {
        let words: Vec<String> = report.state.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        let words = if words.is_empty() { "unknown".to_owned() } else { words.join("+") };
        *states.entry(words).or_default() += 1;
    }
    states
}

fn up_in(map: &ClusterMap, osd: OsdId) -> String {
    format!("{} {}", if map.is_up(osd) { "up" } else { "down" }, if map.is_in(osd) { "in" } else { "out" })
}

impl Top {
    fn json(&self, seen: &Seen, looks: &Looks, pace: &Pace) -> serde_json::Value {
        let (all, map, left) = (sum(looks), seen.map(), Left::of(seen));
        let osds: Vec<_> = map
            .osds
            .iter()
            .map(|(osd, _)| {
                let (heard, work) = (seen.heard.get(&osd), looks.work.get(&osd));
                json!({
                    "osd": osd.0, "up": map.is_up(osd), "in": map.is_in(osd),
                    "used_bytes": heard.map(|heard| heard.used_bytes), "total_bytes": heard.map(|heard| heard.total_bytes),
                    "reads": work.map(|work| work.reads.json()), "writes": work.map(|work| work.writes.json()),
                    "in_flight": work.map(|work| work.in_flight), "slow_ops": heard.map(|heard| heard.slow_ops),
                    "slow_why": heard.map(|heard| heard.slow_why.clone()),
                })
            })
            .collect();
        json!({
            "at_ms": now_ms(), "health": seen.health.status, "epoch": map.epoch.0, "reads": all.reads.json(),
            "writes": all.writes.json(), "in_flight": all.in_flight,
            "recovery": {
                "pgs": left.pgs, "copies": left.copies, "bytes": left.bytes, "bytes_s": pace.bytes_s(),
                "seconds_left": pace.eta().map(|eta| eta.as_secs_f64()),
            },
            "pg_states": states(seen), "osds": osds,
        })
    }

    fn draw(
        &self,
        cluster: &str,
        seen: &Seen,
        looks: &Looks,
        pace: &Pace,
        redraw: bool,
        out: &mut Out,
    ) -> anyhow::Result<()> {
        if redraw {
            // From the top, over what is there; what is left of it is wiped at the end.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        let (map, all) = (seen.map(), sum(looks));
        let health = out.paint(tone(&seen.health.status), &seen.health.status);
        writeln!(
            out,
            "{}  health {health}  epoch {}  {}",
            out.paint(Tone::Strong, cluster),
            map.epoch,
            moment(now_ms())
        )?;
        for check in seen.health.checks.iter().filter(|check| !check.muted) {
            writeln!(out, "  {}: {}", out.paint(tone(&check.severity), &check.name), check.cause)?;
        }
        writeln!(out, "reads    {}", line(&all.reads))?;
        writeln!(out, "writes   {}   {} in flight", line(&all.writes), all.in_flight)?;
        let pgs: Vec<String> = states(seen).into_iter().map(|(state, count)| format!("{count} {state}")).collect();
        writeln!(out, "pgs      {}", pgs.join(", "))?;
        let left = Left::of(seen);
        if left.pgs > 0 {
            let (done, most) = pace.done();
            writeln!(out, "recovery [{}] {}", bar(share(done, most), 30), pace.text())?;
        }
        let slow = seen.heard.iter().filter(|(_, heard)| heard.slow_ops > 0);
        for (osd, heard) in slow.take(3) {
            let text = format!("slow     {osd}: {} operations; {}", heard.slow_ops, heard.slow_why);
            writeln!(out, "{}", out.paint(Tone::Warn, &text))?;
        }
        writeln!(out)?;
        self.table(seen, looks).print(out)?;
        Ok(())
    }

    fn table(&self, seen: &Seen, looks: &Looks) -> Table {
        let map = seen.map();
        let mut osds: Vec<(OsdId, Work)> =
            map.osds.iter().map(|(osd, _)| (osd, looks.work.get(&osd).cloned().unwrap_or_default())).collect();
        osds.sort_by_key(|(osd, work)| (std::cmp::Reverse(work.slowest()), *osd));
        let mut table = Table::new(&[
            ("OSD", Align::Left),
            ("STATE", Align::Left),
            ("FULL", Align::Right),
            ("READS/S", Align::Right),
            ("READ", Align::Right),
            ("P99", Align::Right),
            ("WRITES/S", Align::Right),
            ("WRITTEN", Align::Right),
            ("P99", Align::Right),
            ("IN FLIGHT", Align::Right),
        ]);
        for (osd, work) in osds.iter().take(self.rows) {
            let well = map.is_up(*osd) && map.is_in(*osd);
            let full = seen.heard.get(osd).map(|heard| share(heard.used_bytes, heard.total_bytes) * 100.0);
            let speed = |rate: &Rate| format!("{}/s", Bytes(rate.bytes_s as u64));
            let late = |rate: &Rate| rate.quantile(0.99).map_or_else(|| "-".into(), |us| Micros(us).to_string());
            let plain = |text: String| (Tone::Plain, text);
            table.row_toned(vec![
                plain(osd.to_string()),
                (if well { Tone::Good } else { Tone::Bad }, up_in(map, *osd)),
                plain(full.map_or_else(|| "?".into(), |full| format!("{full:.1} %"))),
                plain(format!("{:.0}", work.reads.ops_s)),
                plain(speed(&work.reads)),
                plain(late(&work.reads)),
                plain(format!("{:.0}", work.writes.ops_s)),
                plain(speed(&work.writes)),
                plain(late(&work.writes)),
                plain(work.in_flight.to_string()),
            ]);
        }
        table
    }
}

fn line(rate: &Rate) -> String {
    let mut line = format!("{:>7.0}/s  {:>10}/s", rate.ops_s, Bytes(rate.bytes_s as u64));
    if let (Some(half), Some(most)) = (rate.quantile(0.5), rate.quantile(0.99)) {
        // Writing to a string does not fail.
        let _ = write!(line, "  half within {}, 99 of 100 within {}", Micros(half), Micros(most));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(up_ms: u64, ops: u64, latency: &[u64]) -> OsdLoad {
        let writes = OpLoad { ops, bytes: ops * 4096, latency: latency.to_vec() };
        OsdLoad { up_ms, writes: Some(writes), ..OsdLoad::default() }
    }

    #[test]
    fn rates_are_differences_and_quantiles_bounds() {
        let work = Work::between(&load(1_000, 100, &[0, 100]), &load(3_000, 300, &[0, 150, 0, 148, 2])).unwrap();
        assert!((work.writes.ops_s - 100.0).abs() < 1e-9 && (work.writes.bytes_s - 409_600.0).abs() < 1e-6);
        // 50 within 2 us, 148 within 8, 2 within 16.
        assert_eq!((work.writes.quantile(0.25), work.writes.quantile(0.5)), (Some(2), Some(8)));
        assert_eq!((work.writes.quantile(0.99), work.writes.quantile(1.0)), (Some(8), Some(16)));
        assert_eq!((work.reads.quantile(0.99), work.slowest()), (None, 8));
    }

    #[test]
    fn one_that_began_anew_has_no_rates() {
        assert_eq!(Work::between(&load(9_000, 100, &[]), &load(1_000, 3, &[])), None);
        assert_eq!(Work::between(&load(1_000, 3, &[]), &load(1_000, 3, &[])), None);
    }
}
