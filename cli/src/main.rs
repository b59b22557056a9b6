//! The one binary `nacre`: every daemon and every operator verb, noun then verb.

use std::process::ExitCode;

use clap::Parser;

/// Nacre: a distributed object store.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {}

fn main() -> ExitCode {
    let Cli {} = Cli::parse();
    ExitCode::SUCCESS
}
