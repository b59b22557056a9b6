//! `nacre crush rename`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Give a device or bucket another name. Moves no data: ids place it, not names.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct Rename {
    /// The map to change.
    map: PathBuf,
    /// Its name now.
    name: String,
    /// Its new name.
    new_name: String,
    #[command(flatten)]
    target: Target,
}

impl Run for Rename {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            map.rename_item(&self.name, &self.new_name)?;
            Ok::<_, EditError>(format!("renamed {} to {}", self.name, self.new_name))
        })
    }
}
