//! `nacre up`, `down`, `status`: the cluster of a `cluster.toml` on this machine.
//!
//! This version has no daemons yet: `up` prepares what they will stand on and says what would run.

mod down;
mod preflight;
mod status;
mod up;

use std::path::PathBuf;

use clap::Args;

pub(crate) use down::Down;
pub(crate) use status::Status;
pub(crate) use up::Up;

#[derive(Args)]
struct ConfigArg {
    /// The file that describes the cluster.
    #[arg(long, short, default_value = "cluster.toml", value_name = "FILE")]
    config: PathBuf,
}

/// The file in the data folder that holds the crush map a cluster begins with.
const CRUSH_FILE: &str = "crush.txt";
