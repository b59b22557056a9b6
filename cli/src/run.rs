//! What a verb is to `main`: something that runs once, speaks through [`Out`], and ends well, badly or with an error.

use crate::output::Out;

/// How a verb that ran to its end answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 1: the verb worked, and what it found is bad. It has said so itself, `main` adds nothing.
    Bad,
}

/// A verb, or a noun that hands over to its verbs.
///
/// Standard output is written through `out` alone; an error is returned, never printed, so that it reads as one chain.
pub(crate) trait Run {
    /// Does it.
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict>;
}
