//! The one binary `nacre`: every daemon and every operator verb, noun then verb.
//!
//! This file parses, dispatches and turns the result into an exit code; what a verb does lives in its noun's module.
//! A new noun is a module beside this one with a clap type that implements [`Run`], and one line in [`Noun`].

#![forbid(unsafe_code)]

mod bench;
mod block;
mod cluster;
mod completion;
mod crush;
mod daemon;
mod join;
mod local;
mod monitors;
mod nbd;
mod object;
mod object_data;
mod osds;
mod output;
mod pg;
#[cfg(test)]
mod reference;
mod run;
mod sim;
mod store;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::{Colour, Out};
use crate::run::{Run, Verdict};

/// Holds what daemons free and take again in other threads closer to what they use than the system's does: memory of an
/// OSD follows its bound, and large writes come in aligned memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nacre: a distributed object store that stays up and correct while its parts break.
///
/// Every command is a noun and a verb, as in `nacre crush tree`.
#[derive(Parser)]
#[command(
    name = "nacre",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 80,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    noun: Noun,

    /// When to colour the output; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, display_order = 900)]
    color: Colour,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, or the answer is bad (a check found something);
2 the command line is wrong. Errors go to stderr and start with \"error:\", the
causes behind it in order.";

#[derive(Subcommand)]
enum Noun {
    Up(local::Up),
    Down(local::Down),
    Restart(local::Restart),
    #[command(hide = true)]
    Supervise(local::Supervise),
    Status(monitors::Status),
    Health(monitors::Health),
    Doctor(monitors::Doctor),
    Top(monitors::Top),
    Mon(monitors::Mon),
    Osd(monitors::Osd),
    Pool(monitors::Pool),
    Object(object::Noun),
    Block(block::Noun),
    Nbd(nbd::Nbd),
    Pg(pg::Noun),
    Balancer(monitors::Balancer),
    Bench(bench::Noun),
    Config(monitors::Config),
    Flag(monitors::Flag),
    Fence(monitors::Fence),
    Cert(monitors::Cert),
    Join(join::Join),
    Log(monitors::Log),
    Watch(monitors::Watch),
    Cluster(cluster::Noun),
    Crush(crush::Noun),
    Daemon(daemon::Daemon),
    Sim(sim::Sim),
    Store(store::Noun),
    Completion(completion::Completion),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self {
            Noun::Up(verb) => verb.run(out),
            Noun::Down(verb) => verb.run(out),
            Noun::Restart(verb) => verb.run(out),
            Noun::Supervise(verb) => verb.run(out),
            Noun::Status(verb) => verb.run(out),
            Noun::Health(verb) => verb.run(out),
            Noun::Doctor(verb) => verb.run(out),
            Noun::Top(verb) => verb.run(out),
            Noun::Mon(noun) => noun.run(out),
            Noun::Osd(noun) => noun.run(out),
            Noun::Pool(noun) => noun.run(out),
            Noun::Object(noun) => noun.run(out),
            Noun::Block(noun) => noun.run(out),
            Noun::Nbd(verb) => verb.run(out),
            Noun::Pg(noun) => noun.run(out),
            Noun::Balancer(noun) => noun.run(out),
            Noun::Bench(noun) => noun.run(out),
            Noun::Config(noun) => noun.run(out),
            Noun::Flag(noun) => noun.run(out),
            Noun::Fence(noun) => noun.run(out),
            Noun::Cert(noun) => noun.run(out),
            Noun::Join(verb) => verb.run(out),
            Noun::Log(verb) => verb.run(out),
            Noun::Watch(verb) => verb.run(out),
            Noun::Cluster(noun) => noun.run(out),
            Noun::Crush(noun) => noun.run(out),
            Noun::Daemon(verb) => verb.run(out),
            Noun::Sim(verb) => verb.run(out),
            Noun::Store(noun) => noun.run(out),
            Noun::Completion(verb) => verb.run(out),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::stdout(cli.color);
    let result = cli.noun.run(&mut out).and_then(|verdict| {
        out.flush()?;
        Ok(verdict)
    });
    match result {
        // Whoever reads our output has seen enough (`| head`): that is no failure.
        _ if out.reader_is_gone() => ExitCode::SUCCESS,
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            // What was said before the failure belongs before its message.
            let _ = out.flush();
            output::complain(cli.color, &error);
            ExitCode::from(1)
        }
    }
}
