//! The proof that the proof works: cores that are wrong on purpose, each to be found within a bounded number of seeds.
//! Compiled only under the feature `mutants`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nacre_pg::mutant::Mutant;

use crate::campaign::judge;
use crate::run::Options;
use crate::scenario::File;

/// Seeds each wrong core is given: far more than it needs, so that a change of the simulation is not a failure at once.
pub const BOUND: u64 = 400;

/// Those which need a rarer run of events.
const RARE: &[(Mutant, u64)] = &[
    (Mutant::TrimTooMuch, 4000),
    (Mutant::StartBelowMin, 4000),
    (Mutant::LeaveDamaged, 8000),
    (Mutant::LatePieces, 8000),
];

/// Those which by chance alone are found in a long run only: looked for with this scenario, which leads to where they show.
/// A test of the core plays what it takes as well.
const HUNTED: &[Mutant] = &[Mutant::PullTwice, Mutant::LosePulls, Mutant::ReturnSilent, Mutant::ForgetScrubs];

const HUNTS: &str = include_str!("../scenarios/hunts.toml");

/// Each wrong core, and within how many seeds it must be found.
pub fn mutants() -> Vec<(Mutant, u64)> {
    let bound = |m: Mutant| RARE.iter().find(|(r, _)| *r == m).map_or(BOUND, |(_, b)| *b);
    Mutant::ALL.iter().map(|&m| (m, bound(m))).collect()
}

/// Is a wrong core looked for with the scenario `hunts`.
pub fn is_hunted(mutant: Mutant) -> bool {
    HUNTED.contains(&mutant)
}

/// How a deliberate fault was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The fault.
    pub mutant: Mutant,
    /// So many seeds were to be enough.
    pub bound: u64,
    /// After how many seeds, and the first line of what gave it away.
    pub by: Option<(u64, String)>,
}

/// Looks for each of them with seeds from 0 on, in so many threads; `each` is told of every one as it is done.
pub fn find(which: &[(Mutant, u64)], threads: usize, each: &(dyn Fn(&Found) + Sync)) -> Vec<Found> {
    #[expect(clippy::expect_used, reason = "a file of this crate, which a test reads too")]
    let hunts = Arc::new(File::parse(HUNTS).expect("the scenario that hunts"));
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..threads.max(1) {
            s.spawn(|| {
                while let Some(&(mutant, bound)) = which.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = is_hunted(mutant).then(|| Arc::clone(&hunts));
                    let options = Options { mutant: Some(mutant), file, ..Options::default() };
                    let by = (0..bound).find_map(|seed| {
                        let o = judge(seed, &options);
                        let cause = o.violations.first()?.lines().next().unwrap_or_default().to_owned();
                        Some((seed + 1, cause))
                    });
                    let f = Found { mutant, bound, by };
                    each(&f);
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(f);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|f| f.mutant);
    found
}
