//! `nacre crush compile`: crush text to Ceph's binary form.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use nacre_crush::binary;

use super::source::{self, MapArg};
use crate::output::{JsonFlag, Out, count};
use crate::run::{Run, Verdict};

/// Compile a map to Ceph's binary form, as `crushtool -c` does.
#[derive(Args)]
#[command(after_long_help = "--json: {output, bytes, devices, buckets, rules}, the latter three are counts.")]
pub(super) struct Compile {
    #[command(flatten)]
    map: MapArg,
    /// Where the binary map goes; - writes standard output.
    #[arg(short, long = "output", visible_alias = "outfn", value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Compile {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.map.read()?;
        let bytes = binary::encode(&map);
        source::write(&self.output, &bytes, out)?;
        let to_stdout = self.output.as_os_str() == "-";
        if self.json.json && !to_stdout {
            out.json(&serde_json::json!({
                "output": self.output, "bytes": bytes.len(), "devices": map.devices.len(),
                "buckets": map.buckets.len(), "rules": map.rules.len(),
            }))?;
        } else if !to_stdout {
            writeln!(
                out,
                "{}: {}, {}, {}, {} bytes",
                self.output.display(),
                count(map.devices.len(), "device"),
                count(map.buckets.len(), "bucket"),
                count(map.rules.len(), "rule"),
                bytes.len()
            )?;
        }
        Ok(Verdict::Good)
    }
}
