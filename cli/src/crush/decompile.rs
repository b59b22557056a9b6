//! `nacre crush decompile`: a map as crush text, or as JSON.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::text;

use super::describe::describe;
use super::source::{self, MapArg};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Print a map as crush text, as `crushtool -d` does.
#[derive(Args)]
#[command(after_long_help = "\
--json: the whole map: {max_devices, devices: [{id, name, class}], types: [{id, name}], buckets: [{id, name, type, alg,
hash, weight, items: [{id, name, weight}], shadow_of, class}], rules: [{id, name, type, min_size, max_size, steps}],
tunables, choose_args}. Weights are numbers; shadow_of and class are null for what has none; a step is
{op, item|num, type|value}.")]
pub(super) struct Decompile {
    #[command(flatten)]
    map: MapArg,
    /// Where the text goes.
    #[arg(short, long = "output", visible_alias = "outfn", value_name = "FILE", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Decompile {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.map.read()?;
        let text = if self.json.json {
            let mut json = serde_json::to_string_pretty(&describe(&map))?;
            json.push('\n');
            json
        } else {
            text::print(&map)
        };
        source::write(&self.output, text.as_bytes(), out)?;
        Ok(Verdict::Good)
    }
}
