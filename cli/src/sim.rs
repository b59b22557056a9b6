//! `nacre sim`: runs simulated clusters from seeds and judges them. What a run is lives in the crate `nacre-sim`.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nacre_sim::Options;
use nacre_sim::campaign::{Summary, describe, judge};

use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Run simulated clusters from seeds and judge what their clients saw.
///
/// One thread, no sockets, no files: the same seed gives the same run. Without a choice of seeds, the first 100.
#[derive(Args)]
#[command(after_long_help = "\
--json: {seeds, operations, simulated_seconds, events, violations, mutants_found, too_hard, failed_seeds: [N],
moves_never_seen: [TEXT]}. Exit code 1 on a violation.")]
pub(crate) struct Sim {
    /// Run this seed alone.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Run the seeds from A up to, not with, B.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Run seeds, from A of --seeds on, for so long.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Print every event of the run (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    #[command(flatten)]
    json: JsonFlag,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (a, b) = text.split_once("..").ok_or("a range is written A..B, as in 0..1000")?;
    let number = |t: &str| t.parse::<u64>().map_err(|e| format!("{t}: {e}"));
    let (a, b) = (number(a)?, number(b)?);
    if a < b { Ok((a, b)) } else { Err(format!("{a}..{b} is empty")) }
}

impl Run for Sim {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let (from, to) = match (self.seed, self.seeds, self.minutes) {
            (Some(seed), _, _) => (seed, seed + 1),
            (None, Some((a, _)), Some(_)) => (a, u64::MAX),
            (None, Some(range), None) => range,
            (None, None, Some(_)) => (0, u64::MAX),
            (None, None, None) => (0, 100),
        };
        let end = self.minutes.map(|m| Instant::now() + Duration::from_secs(60 * m));
        let options = Options::default().traced(self.trace);
        let mut summary = Summary::default();
        for seed in from..to {
            if end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
            let mut outcome = judge(seed, &options);
            summary.add(&outcome);
            if self.trace && !self.json.json {
                for line in &outcome.trace {
                    writeln!(out, "{line}")?;
                }
            }
            if !outcome.violations.is_empty() && !self.json.json {
                outcome = judge(seed, &options.traced(true));
                write!(out, "{}", describe(&outcome, env!("CARGO_PKG_VERSION"))).context("printing a violation")?;
            }
        }
        let summary = summary.finish();
        let bad = summary.violations > 0;
        if self.json.json {
            out.json(&summary)?;
        } else {
            writeln!(
                out,
                "{} seeds, {} operations, {} simulated seconds, {} events: {} violations",
                summary.seeds, summary.operations, summary.simulated_seconds, summary.events, summary.violations
            )?;
        }
        Ok(if bad { Verdict::Bad } else { Verdict::Good })
    }
}
