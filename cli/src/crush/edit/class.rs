//! `nacre crush set-class`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::EditError;

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Put devices into a device class, whichever they were in.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct SetClass {
    /// The map to change.
    map: PathBuf,
    /// The class (ssd, hdd ...); an empty name takes them out of theirs.
    class: String,
    /// The devices: osd.3 ...
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    #[command(flatten)]
    target: Target,
}

impl Run for SetClass {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            let devices: Vec<&str> = self.devices.iter().map(String::as_str).collect();
            if self.class.is_empty() {
                map.clear_class(&devices)?;
                return Ok::<_, EditError>(format!("no class: {}", self.devices.join(", ")));
            }
            map.set_class(&devices, &self.class)?;
            Ok(format!("class {}: {}", self.class, self.devices.join(", ")))
        })
    }
}
