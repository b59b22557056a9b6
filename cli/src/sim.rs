//! `nacre sim`: runs simulated clusters from seeds and judges them. What a run is lives in the crate `nacre-sim`.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nacre_sim::campaign::{Plan, Summary, campaign, describe, judge, replay};
#[cfg(feature = "mutants")]
use nacre_sim::mutation;
use nacre_sim::scenario::File;
use nacre_sim::{Options, Outcome};
use serde::Serialize;

use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Run simulated clusters from seeds and judge what their clients saw.
///
/// A run is one thread, no sockets, no files: the same seed gives the same run. Without a choice of seeds, the first 100.
/// How to read what it prints: docs/internals/simulation.md.
#[derive(Args)]
#[command(after_long_help = "\
--json: {seeds, operations, simulated_seconds, events, violations, mutants_found, too_hard, failed_seeds: [N],
sights: {NAME: N}, moves_never_seen: [TEXT], sights_never_seen: [TEXT], failures: [{seed, cause, commit, replay}]}.
Exit code 1 on a violation.")]
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
    /// A file that fixes what the seeds would draw: how many OSDs, which faults how often. sim/scenarios/ has some.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Threads, each with seeds of its own. Default: one per core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print every event of the run (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Look for each deliberately wrong core instead: only in a build with the feature `mutants`.
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with_all = ["seed", "seeds", "minutes", "scenario", "trace"])]
    mutants: bool,
    #[command(flatten)]
    json: JsonFlag,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (a, b) = text.split_once("..").ok_or("a range is written A..B, as in 0..1000")?;
    let number = |t: &str| t.parse::<u64>().map_err(|e| format!("{t}: {e}"));
    let (a, b) = (number(a)?, number(b)?);
    if a < b { Ok((a, b)) } else { Err(format!("{a}..{b} is empty")) }
}

/// One failure, for programs.
#[derive(Serialize)]
struct Failure {
    seed: u64,
    cause: String,
    commit: String,
    replay: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    summary: Summary,
    failures: Vec<Failure>,
}

/// Of the sources: of the clone one stands in, else of the release.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).output();
    let told = git.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    told.filter(|t| !t.is_empty()).unwrap_or_else(|| format!("release {}", env!("CARGO_PKG_VERSION")))
}

/// Failures told in full; of the rest the seeds are listed.
const TOLD: usize = 20;

impl Sim {
    fn plan(&self) -> Plan {
        let (from, to) = match (self.seed, self.seeds, self.minutes) {
            (Some(seed), _, _) => (seed, seed.saturating_add(1)),
            (None, Some((a, _)), Some(_)) => (a, u64::MAX),
            (None, Some(range), None) => range,
            (None, None, Some(_)) => (0, u64::MAX),
            (None, None, None) => (0, 100),
        };
        let until = self.minutes.map(|m| Instant::now() + Duration::from_secs(m.saturating_mul(60)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Plan { from, to, until, threads: self.threads.unwrap_or(cores) }
    }

    fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::default();
        if let Some(path) = &self.scenario {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let file = File::parse(&text).map_err(anyhow::Error::msg);
            options.file = Some(Arc::new(file.with_context(|| format!("scenario file {}", path.display()))?));
        }
        Ok(options)
    }

    /// Says of a failure all that helps to find its cause.
    fn tell(&self, out: &mut Out, o: &Outcome, options: &Options) -> anyhow::Result<Failure> {
        let file = self.scenario.as_ref().map(|p| p.display().to_string());
        let commit = commit();
        if !self.json.json {
            let traced = if o.trace.is_empty() { &judge(o.seed, &options.traced(true)) } else { o };
            write!(out, "{}", describe(traced, &commit, file.as_deref())).context("printing a violation")?;
            out.flush().context("printing a violation")?;
        }
        let cause = o.violations.first().and_then(|v| v.lines().next()).unwrap_or_default().to_owned();
        Ok(Failure { seed: o.seed, cause, commit, replay: replay(o.seed, file.as_deref()) })
    }
}

impl Run for Sim {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        #[cfg(feature = "mutants")]
        if self.mutants {
            return self.find_mutants(out);
        }
        let (plan, options) = (self.plan(), self.options()?);
        if self.trace
            && !self.json.json
            && let Some(seed) = self.seed
        {
            for line in judge(seed, &options.traced(true)).trace {
                writeln!(out, "{line}")?;
            }
        }
        let (send, failed) = mpsc::channel::<Outcome>();
        let (summary, failures) = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                campaign(&plan, &options, &mut move |o| {
                    if !o.violations.is_empty() {
                        // Nobody listens any more if printing failed.
                        drop(send.send(o.clone()));
                    }
                })
            });
            let mut failures = Vec::new();
            for o in failed {
                if failures.len() < TOLD {
                    failures.push(self.tell(out, &o, &options)?);
                }
            }
            let summary = run.join().map_err(|_| anyhow::anyhow!("the simulation itself stopped"))?;
            anyhow::Ok((summary, failures))
        })?;
        let bad = summary.violations > 0;
        if self.json.json {
            out.json(&Told { summary, failures })?;
        } else {
            writeln!(
                out,
                "{} seeds, {} operations, {} simulated seconds, {} events: {} violations",
                summary.seeds, summary.operations, summary.simulated_seconds, summary.events, summary.violations
            )?;
            if summary.too_hard > 0 {
                writeln!(out, "{} objects had a history too long to be judged", summary.too_hard)?;
            }
        }
        Ok(if bad { Verdict::Bad } else { Verdict::Good })
    }
}

#[cfg(feature = "mutants")]
impl Sim {
    fn find_mutants(&self, out: &mut Out) -> anyhow::Result<Verdict> {
        // A wrong core may stop on its own checks: that is a find, and its text is in the outcome.
        std::panic::set_hook(Box::new(|_| ()));
        let found = mutation::find(&mutation::mutants(), self.plan().threads, &|_| ());
        let count = found.iter().filter(|f| f.by.is_some()).count();
        if self.json.json {
            let summary = Summary { mutants_found: count as u64, ..Summary::default() };
            out.json(&Told { summary, failures: Vec::new() })?;
        } else {
            for f in &found {
                match &f.by {
                    Some((seeds, cause)) => writeln!(out, "{:?}: after {seeds} seeds: {cause}", f.mutant)?,
                    None => writeln!(out, "{:?}: not within {} seeds", f.mutant, f.bound)?,
                }
            }
            writeln!(out, "{count} of {} found", found.len())?;
        }
        Ok(if count == found.len() { Verdict::Good } else { Verdict::Bad })
    }
}
