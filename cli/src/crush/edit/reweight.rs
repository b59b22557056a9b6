//! `nacre crush reweight`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;
use nacre_crush::model::Weight;

use super::{JSON_HELP, Target, change, shown, weight};
use crate::output::{Out, count};
use crate::run::{Run, Verdict};

/// Set the weight of a device, or scale all below a bucket so that it weighs so much.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct Reweight {
    /// The map to change.
    map: PathBuf,
    /// The device or bucket.
    name: String,
    /// Its weight, in TiB by custom.
    #[arg(value_parser = weight, allow_negative_numbers = true)]
    weight: Weight,
    /// Give this weight to every device below the bucket, instead of scaling them.
    #[arg(long)]
    each: bool,
    #[command(flatten)]
    target: Target,
}

impl Run for Reweight {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            let weight = shown(self.weight);
            if self.each {
                let devices = count(map.reweight_devices_below(&self.name, self.weight)?, "device");
                return Ok::<_, EditError>(format!("weight {weight} for each of {devices} below {}", self.name));
            }
            map.reweight_item(&self.name, self.weight)?;
            Ok(format!("{} weighs {weight}", self.name))
        })
    }
}
