//! `nacre completion`: the script that teaches a shell to complete our nouns, verbs and flags.

use std::io::Write;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::Cli;
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Print the completion script of a shell.
///
/// bash: `nacre completion bash > /etc/bash_completion.d/nacre`; zsh: into a folder of `$fpath` as `_nacre`;
/// fish: `nacre completion fish > ~/.config/fish/completions/nacre.fish`.
#[derive(Args)]
pub(crate) struct Completion {
    /// The shell to write for.
    #[arg(value_enum)]
    shell: ShellName,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

impl Run for Completion {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        // The generator panics when its sink fails; a closed pipe must not.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "nacre", &mut script);
        out.write_all(&script)?;
        Ok(Verdict::Good)
    }
}
