//! `nacre crush add-bucket`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Add an empty bucket.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct AddBucket {
    /// The map to change.
    map: PathBuf,
    /// Its name.
    name: String,
    /// Its type: host, rack ...
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The bucket it goes into, last; a root of its own, if left out.
    #[arg(long = "in", value_name = "BUCKET")]
    parent: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Run for AddBucket {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            let id = map.add_bucket(&self.name, &self.kind, self.parent.as_deref())?;
            let place = self.parent.as_ref().map_or_else(|| "as a root".to_owned(), |parent| format!("to {parent}"));
            Ok::<_, EditError>(format!("added {} {} (id {id}) {place}", self.kind, self.name))
        })
    }
}
