//! `nacre crush move`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Move a device, or a bucket with all below it, into another bucket.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct Move {
    /// The map to change.
    map: PathBuf,
    /// What to move.
    name: String,
    /// The bucket it goes into, last.
    #[arg(long = "in", value_name = "BUCKET", required_unless_present = "out")]
    parent: Option<String>,
    /// Take it out of its bucket instead: a bucket becomes a root, a device holds nothing.
    #[arg(long, conflicts_with = "parent")]
    out: bool,
    #[command(flatten)]
    target: Target,
}

impl Run for Move {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            match &self.parent {
                Some(parent) => map.move_item(&self.name, parent)?,
                None => map.detach_item(&self.name)?,
            }
            let place = self.parent.as_ref().map_or_else(|| "out of its bucket".to_owned(), |to| format!("to {to}"));
            Ok::<_, EditError>(format!("moved {} {place}", self.name))
        })
    }
}
