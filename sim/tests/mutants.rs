//! The proof that the proof works: cores that are wrong on purpose, each found within a bounded number of seeds.
//!
//! `cargo nextest run -p nacre-sim --features mutants mutants`; with `NACRE_REWRITE=1` the table in
//! `docs/internals/mutants.md` is written anew.
#![cfg(feature = "mutants")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nacre_pg::mutant::Mutant;
use nacre_sim::Options;
use nacre_sim::campaign::judge;

/// Seeds each of them is given.
const BOUND: u64 = 400;

/// Faults that need a rarer run of events than the bound holds; `docs/internals/pg-next.md` says what would provoke them.
const RARE: &[Mutant] = &[Mutant::LongestLog, Mutant::TakeStale];

#[test]
fn every_mutant_is_found() {
    // A mutant's core may stop on its own checks: that is a find, and its text is in the outcome.
    std::panic::set_hook(Box::new(|_| ()));
    // To look at one alone: its name, or a part of it.
    let only = std::env::var("NACRE_MUTANT").unwrap_or_default();
    let all: Vec<Mutant> = Mutant::ALL.into_iter().filter(|m| format!("{m:?}").contains(&only)).collect();
    let next = AtomicUsize::new(0);
    type Found = (Mutant, Option<(u64, String)>);
    let found: Mutex<Vec<Found>> = Mutex::default();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while let Some(&mutant) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let options = Options { mutant: Some(mutant), ..Options::default() };
                    let hit = (0..BOUND).find_map(|seed| {
                        let o = judge(seed, &options);
                        o.violations.first().map(|v| (seed + 1, v.lines().next().unwrap_or_default().to_owned()))
                    });
                    println!("{mutant:?} {hit:?}");
                    if let Ok(mut f) = found.lock() {
                        f.push((mutant, hit));
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let mut found = found.into_inner().unwrap();
    found.sort();
    let mut text = String::from(
        "# Deliberately wrong cores\n\nEach row is a fault built into the core on purpose (`osd/pg/src/mutant.rs`) and how many seeds the \
         simulation needed to\nfind it. Written by `sim/tests/mutants.rs`; edits by hand do not last.\n\n\
         | mutant | seeds until found | what gave it away |\n| --- | --- | --- |\n",
    );
    let mut missed = Vec::new();
    for (mutant, hit) in &found {
        match hit {
            Some((seeds, cause)) => {
                let cause: String = cause.chars().take(110).collect();
                text.push_str(&format!("| {mutant:?} | {seeds} | {} |\n", cause.replace('|', "/")));
            }
            None => {
                missed.push(*mutant);
                text.push_str(&format!("| {mutant:?} | not in {BOUND} | |\n"));
            }
        }
    }
    if std::env::var_os("NACRE_REWRITE").is_some() && only.is_empty() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/internals/mutants.md");
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/internals")).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    missed.retain(|m| !RARE.contains(m));
    assert!(missed.is_empty(), "not found within {BOUND} seeds: {missed:?}\n{text}");
}
