//! The proof that the proof works: cores that are wrong on purpose, each to be found within a bounded number of seeds.
//! Compiled only under the feature `mutants`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nacre_pg::mutant::Mutant;

use crate::campaign::judge;
use crate::run::Options;

/// Seeds each wrong core is given: far more than it needs, so that a change of the simulation is not a failure at once.
pub const BOUND: u64 = 400;

/// Those which need a rarer run of events. No bound: the simulation found the fault once, in a long run; a test of the core
/// plays what it takes, and fails with the fault built in.
const RARE: &[(Mutant, Option<u64>)] = &[
    (Mutant::PullTwice, None),
    (Mutant::LosePulls, None),
    (Mutant::ReturnSilent, None),
    (Mutant::TrimTooMuch, Some(4000)),
    (Mutant::StartBelowMin, Some(4000)),
    (Mutant::LeaveDamaged, Some(4000)),
    (Mutant::LatePieces, Some(4000)),
    (Mutant::ForgetScrubs, None),
];

/// Each wrong core, and within how many seeds it must be found.
pub fn mutants() -> Vec<(Mutant, u64)> {
    let bound = |m: Mutant| RARE.iter().find(|(r, _)| *r == m).map_or(Some(BOUND), |(_, b)| *b);
    Mutant::ALL.iter().filter_map(|&m| Some((m, bound(m)?))).collect()
}

/// Those without a bound.
pub fn unbounded() -> Vec<Mutant> {
    RARE.iter().filter(|(_, b)| b.is_none()).map(|(m, _)| *m).collect()
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
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..threads.max(1) {
            s.spawn(|| {
                while let Some(&(mutant, bound)) = which.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let options = Options { mutant: Some(mutant), ..Options::default() };
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
