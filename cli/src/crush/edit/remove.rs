//! `nacre crush remove`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;

use super::{JSON_HELP, Target, change};
use crate::output::{Out, count};
use crate::run::{Run, Verdict};

/// Remove a device or an empty bucket from the map.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct Remove {
    /// The map to change.
    map: PathBuf,
    /// What to remove.
    name: String,
    /// All below it too.
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    target: Target,
}

impl Run for Remove {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            if self.tree {
                let devices = map.remove_tree(&self.name)?.len();
                let devices = count(devices, "device");
                return Ok::<_, EditError>(format!("removed {} with {devices}", self.name));
            }
            map.remove_item(&self.name)?;
            Ok(format!("removed {}", self.name))
        })
    }
}
