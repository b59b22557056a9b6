//! The proof that the proof works: cores that are wrong on purpose, each found within a bounded number of seeds.
//!
//! `cargo nextest run -p nacre-sim --features mutants -E 'binary(mutants)'`; with `NACRE_REWRITE=1` the table in
//! `docs/internals/mutants.md` is written anew. `nacre sim --mutants` of a build with that feature does the same search.
#![cfg(feature = "mutants")]

use nacre_pg::mutant::Mutant;
use nacre_sim::mutation::{find, is_hunted, mutants};

const HEAD: &str = "# Deliberately wrong cores

Each row is a fault built into the core on purpose (`osd/pg/src/mutant.rs`), how many seeds the simulation needed to find it,
and the first thing that gave it away. Written by `sim/tests/mutants.rs`; edits by hand do not last.

| mutant | seeds until found | what gave it away |
| --- | --- | --- |
";

const REST: &str = "
Those marked * by chance alone were found in a long run only: each shows if what is lost is lost within a few milliseconds, and no
new interval follows that would set it right. They are looked for with `sim/scenarios/hunts.toml`, which leads every run to
such a moment, all others with what the seeds draw. A test of the core plays just that as well, and has to fail with the fault
built in: `a_piece_that_comes_twice_is_put_in_place_once`, `a_spare_copy_that_was_away_while_it_was_asked_is_asked_again`,
`a_spare_copy_that_was_down_by_the_map_comes_forward_again`, `a_scrub_begins_anew_when_its_primary_goes_on_to_the_next_interval`.
";

#[test]
fn every_mutant_is_found() {
    // A mutant's core may stop on its own checks: that is a find, and its text is in the outcome.
    std::panic::set_hook(Box::new(|_| ()));
    // To look at one alone: its name, or a part of it.
    let only = std::env::var("NACRE_MUTANT").unwrap_or_default();
    let which: Vec<(Mutant, u64)> = mutants().into_iter().filter(|(m, _)| format!("{m:?}").contains(&only)).collect();
    let found = find(&which, 2, &|f| println!("{f:?}"));
    let _ = std::panic::take_hook();
    let mut text = String::from(HEAD);
    for f in &found {
        let (seeds, cause) = match &f.by {
            Some((seeds, cause)) => (seeds.to_string(), cause.chars().take(110).collect()),
            None => (format!("not in {}", f.bound), String::new()),
        };
        let hunted = if is_hunted(f.mutant) { " *" } else { "" };
        text.push_str(&format!("| {:?}{hunted} | {seeds} | {} |\n", f.mutant, cause.replace('|', "/")));
    }
    text.push_str(REST);
    if std::env::var_os("NACRE_REWRITE").is_some() && only.is_empty() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/internals/mutants.md"), &text).unwrap();
    }
    let missed: Vec<Mutant> = found.iter().filter(|f| f.by.is_none()).map(|f| f.mutant).collect();
    assert!(missed.is_empty(), "not found in time: {missed:?}\n{text}");
    assert!(!only.is_empty() || found.len() >= 12, "the list of wrong cores has become short");
}
