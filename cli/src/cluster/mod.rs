//! `nacre cluster`: what a `cluster.toml` says, checked and drawn. Describes only; `crate::local` acts on it.
//!
//! - [`mod@file`]: TOML with spans and all problems at once. [`keys`]: every key, its default and meaning.
//! - [`schema`]: the typed result. [`read`] fills it, [`validate`] checks what holds between keys, [`mod@load`] does both.
//! - [`placement`]: the crush map that follows from it.
//! - One file for each verb: [`check`], [`show`], [`tree`], [`crush`], [`list`].

mod check;
mod crush;
mod file;
mod keys;
mod list;
mod load;
pub(crate) mod placement;
mod read;
#[cfg(test)]
mod reference;
pub(crate) mod schema;
mod show;
mod tree;
mod validate;

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::{Out, aside};
use crate::run::{Run, Verdict};

pub(crate) use file::Size;
pub(crate) use load::{Loaded, load};

/// Check and draw what a cluster.toml describes, without starting anything.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(check::Check),
    Show(show::Show),
    Tree(tree::Tree),
    Crush(crush::Crush),
    #[command(name = "keys")]
    List(list::List),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Check(verb) => verb.run(out),
            Verb::Show(verb) => verb.run(out),
            Verb::Tree(verb) => verb.run(out),
            Verb::Crush(verb) => verb.run(out),
            Verb::List(verb) => verb.run(out),
        }
    }
}

#[derive(Args)]
struct FileArg {
    /// The file to read.
    #[arg(default_value = "cluster.toml")]
    file: PathBuf,
}

/// Warnings of a file that is used all the same, to stderr: they are no part of what was asked for.
pub(crate) fn warn(loaded: &Loaded) {
    for warning in loaded.warnings.iter() {
        aside(&loaded.warnings.show(warning));
    }
}
