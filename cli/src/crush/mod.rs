//! `nacre crush`: placement maps, offline. Reads and writes map files; a running cluster is not asked.
//!
//! - [`source`]: maps from files, text or binary; errors with their place. [`describe`]: a map as JSON.
//! - One file for each verb; those that change a map are in [`edit`].

mod check;
mod compare;
mod compile;
mod decompile;
mod describe;
mod edit;
mod source;
mod test;
mod tree;

use clap::{Args, Subcommand};

use crate::output::Out;
use crate::run::{Run, Verdict};

/// Look at, test, compare, change and convert placement maps, offline.
///
/// Maps are read as crush text or in Ceph's binary form, whichever a file is; `-` reads standard input.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Compile(compile::Compile),
    Decompile(decompile::Decompile),
    Test(test::Test),
    Tree(tree::Tree),
    Compare(compare::Compare),
    Check(check::Check),
    AddDevice(edit::AddDevice),
    AddBucket(edit::AddBucket),
    Move(edit::Move),
    Remove(edit::Remove),
    Rename(edit::Rename),
    Reweight(edit::Reweight),
    SetClass(edit::SetClass),
    Rule(edit::RuleNoun),
    Tunables(edit::Tunables),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Compile(verb) => verb.run(out),
            Verb::Decompile(verb) => verb.run(out),
            Verb::Test(verb) => verb.run(out),
            Verb::Tree(verb) => verb.run(out),
            Verb::Compare(verb) => verb.run(out),
            Verb::Check(verb) => verb.run(out),
            Verb::AddDevice(verb) => verb.run(out),
            Verb::AddBucket(verb) => verb.run(out),
            Verb::Move(verb) => verb.run(out),
            Verb::Remove(verb) => verb.run(out),
            Verb::Rename(verb) => verb.run(out),
            Verb::Reweight(verb) => verb.run(out),
            Verb::SetClass(verb) => verb.run(out),
            Verb::Rule(verb) => verb.run(out),
            Verb::Tunables(verb) => verb.run(out),
        }
    }
}
