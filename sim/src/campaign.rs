//! Many seeds: a range or as many as fit a time, the summary of them, and what to print of a failure.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::coverage::{Moves, Sights, moves_never_seen, sights_never_seen};
use crate::run::{Options, Outcome, run};

/// What a campaign showed; `--json` prints just this.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Simulated time.
    pub simulated_seconds: u64,
    /// Events.
    pub events: u64,
    /// Runs that violated an invariant.
    pub violations: u64,
    /// Deliberate faults that were found.
    pub mutants_found: u64,
    /// Objects whose history was too long to be judged.
    pub too_hard: u64,
    /// The first seeds that failed.
    pub failed_seeds: Vec<u64>,
    /// How often each fault was done and each thing that faults lead to was seen.
    pub sights: Sights,
    /// Moves of state the core knows and no seed made, but those known as unreachable.
    pub moves_never_seen: Vec<String>,
    /// Faults no seed did, and things none saw.
    pub sights_never_seen: Vec<String>,
    #[serde(skip)]
    moves: Moves,
    #[serde(skip)]
    nanoseconds: u128,
}

impl Summary {
    /// Adds one run.
    pub fn add(&mut self, o: &Outcome) {
        self.seeds += 1;
        self.operations += o.operations;
        self.nanoseconds += u128::from(o.simulated);
        self.simulated_seconds = (self.nanoseconds / 1_000_000_000) as u64;
        self.events += o.events;
        self.too_hard += o.too_hard;
        for (k, n) in &o.moves {
            *self.moves.entry(*k).or_default() += n;
        }
        for (k, n) in &o.sights {
            *self.sights.entry(*k).or_default() += n;
        }
        if !o.violations.is_empty() {
            self.violations += 1;
            self.failed_seeds.push(o.seed);
            self.failed_seeds.sort_unstable();
            self.failed_seeds.truncate(20);
        }
    }

    /// Names what was never seen.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.moves_never_seen = moves_never_seen(&self.moves);
        self.sights_never_seen = sights_never_seen(&self.sights);
        self
    }

    /// How often each move was made.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }
}

/// Runs a seed; a panic of a core is a violation like any other.
pub fn judge(seed: u64, options: &Options) -> Outcome {
    let done = std::panic::catch_unwind(|| run(seed, options));
    done.unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        Outcome { seed, violations: vec![format!("a core stopped: {text}")], ..Outcome::default() }
    })
}

/// Which seeds to run, and on how much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From this seed.
    pub from: u64,
    /// Up to, not with, this.
    pub to: u64,
    /// No new seed after this.
    pub until: Option<Instant>,
    /// Threads; each runs seeds of its own.
    pub threads: usize,
}

/// Runs the seeds of a plan; `each` is told every outcome, in no fixed order. A seed's outcome does not depend on it.
pub fn campaign(plan: &Plan, options: &Options, each: &mut (dyn FnMut(&Outcome) + Send)) -> Summary {
    let next = AtomicU64::new(plan.from);
    let shared = Mutex::new((Summary::default(), each));
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                while plan.until.is_none_or(|end| Instant::now() < end) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= plan.to {
                        return;
                    }
                    let outcome = judge(seed, options);
                    let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    shared.0.add(&outcome);
                    (shared.1)(&outcome);
                }
            });
        }
    });
    shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).0.finish()
}

/// How to run one seed again.
pub fn replay(seed: u64, file: Option<&str>) -> String {
    let file = file.map(|f| format!(" --scenario {f}")).unwrap_or_default();
    format!("nacre sim --seed {seed}{file} --trace")
}

/// What to print of a run that failed: the cause, how to repeat it, and what its trace says of the object and the pg.
pub fn describe(o: &Outcome, commit: &str, file: Option<&str>) -> String {
    let mut out = format!("seed {} violates:\n{}\n", o.seed, o.violations.join("\n"));
    out.push_str(&format!("commit {commit}\nreplay: {}\n", replay(o.seed, file)));
    for l in trimmed(o) {
        out.push_str("  ");
        out.extend(l.chars().take(WIDTH));
        out.push('\n');
    }
    out
}

/// Lines of a trimmed trace.
const LINES: usize = 80;

/// Characters of each.
const WIDTH: usize = 240;

/// The end of the trace: what concerns the objects and pgs that the first violation names, and what befell the cluster.
fn trimmed(o: &Outcome) -> Vec<&String> {
    let text = o.violations.first().map(String::as_str).unwrap_or_default();
    let word = |w: &str| w.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.').to_owned();
    let words: Vec<String> = text.split([' ', '"', '/', '\n']).map(word).collect();
    let objects = words.iter().filter(|w| w.starts_with("object-")).map(|w| format!("\"{w}\""));
    let pgs = words.windows(2).filter(|w| w[0] == "pg" && !w[1].is_empty()).map(|w| format!(" {} ", w[1]));
    let named: Vec<String> = objects.chain(pgs).collect();
    // Neither a message nor a request nor a connection: something that befell the cluster.
    let befell = |l: &str| !l.contains("->") && !l.contains("client ") && !l.contains("connection ");
    let concerns = |l: &&String| named.is_empty() || befell(l) || named.iter().any(|n| l.contains(n));
    let all: Vec<&String> = o.trace.iter().filter(concerns).collect();
    all[all.len().saturating_sub(LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_how_to_repeat_it_and_shows_what_concerns_it() {
        let trace = [
            "0.1 osd.1 crashes, 0 of 0 unsynced bytes survive",
            "0.2 osd.1 -> osd.2 1.3 rep @4 of b\"object-7\"",
            "0.3 osd.1 -> osd.2 1.0 rep @4 of b\"object-2\"",
            "0.4 osd.1 -> osd.2 1.3 pull @4",
            "0.5 connection Osd(1) Osd(2) lost",
        ];
        let o = Outcome {
            seed: 9,
            violations: vec!["osd.1 pg 1.3: object-7: an acknowledged write is lost".to_owned()],
            trace: trace.map(str::to_owned).to_vec(),
            ..Outcome::default()
        };
        let text = describe(&o, "abc", Some("a.toml"));
        assert!(text.starts_with("seed 9 violates:\nosd.1 pg 1.3"), "{text}");
        assert!(text.contains("commit abc\nreplay: nacre sim --seed 9 --scenario a.toml --trace\n"), "{text}");
        let kept: Vec<&str> = trace.into_iter().filter(|l| text.contains(l)).collect();
        assert_eq!(kept, [trace[0], trace[1], trace[3]]);
    }
}
