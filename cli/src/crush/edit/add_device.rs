//! `nacre crush add-device`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::model::{ItemId, Weight};

use super::{JSON_HELP, Target, change, shown, weight};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Add a device to a bucket.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct AddDevice {
    /// The map to change.
    map: PathBuf,
    /// Its number; it is called osd.ID.
    #[arg(allow_negative_numbers = true)]
    id: ItemId,
    /// How much it holds against others, in TiB by custom.
    #[arg(value_parser = weight, allow_negative_numbers = true)]
    weight: Weight,
    /// The bucket it goes into, last.
    #[arg(long = "in", value_name = "BUCKET")]
    parent: String,
    /// Its device class.
    #[arg(long)]
    class: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Run for AddDevice {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            map.add_device(self.id, None, self.weight, self.class.as_deref(), &self.parent)?;
            Ok::<_, nacre_crush::edit::EditError>(format!(
                "added osd.{} with weight {} to {}",
                self.id,
                shown(self.weight),
                self.parent
            ))
        })
    }
}
