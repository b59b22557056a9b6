//! Many seeds: a range or as many as fit a time, the summary of them, and what to print of a failure.

use std::collections::BTreeMap;

use serde::Serialize;

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
    /// Moves of state the core knows and no seed made.
    pub moves_never_seen: Vec<String>,
    #[serde(skip)]
    moves: BTreeMap<(&'static str, &'static str), u64>,
}

impl Summary {
    /// Adds one run.
    pub fn add(&mut self, o: &Outcome) {
        self.seeds += 1;
        self.operations += o.operations;
        self.simulated_seconds += o.simulated / 1_000_000_000;
        self.events += o.events;
        self.too_hard += o.too_hard;
        for (k, n) in &o.moves {
            *self.moves.entry(*k).or_default() += n;
        }
        if !o.violations.is_empty() {
            self.violations += 1;
            if self.failed_seeds.len() < 20 {
                self.failed_seeds.push(o.seed);
            }
        }
    }

    /// Which moves of the table were never made: `*` stands for any state.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.moves_never_seen = nacre_pg::TRANSITIONS
            .iter()
            .filter(|(from, to, _)| !self.moves.keys().any(|(f, t)| (f == from || *from == "*") && t == to))
            .map(|(from, to, by)| format!("{from} -> {to}: {by}"))
            .collect();
        self
    }

    /// How often each move was made.
    pub fn moves(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
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

/// What to print of a run that failed: the cause, how to repeat it, and the end of its trace.
pub fn describe(o: &Outcome, commit: &str) -> String {
    let mut out = format!("seed {} violates:\n{}\n", o.seed, o.violations.join("\n"));
    out.push_str(&format!("commit {commit}\nreplay: nacre sim --seed {} --trace\n", o.seed));
    let lines = &o.trace[o.trace.len().saturating_sub(60)..];
    for l in lines {
        out.push_str("  ");
        out.push_str(l);
        out.push('\n');
    }
    out
}
