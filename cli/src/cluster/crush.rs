//! `nacre cluster crush`: the crush map that a cluster.toml leads to.

use std::io::Write;

use clap::Args;

use super::{FileArg, load, placement, warn};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Print the crush map that follows from a cluster.toml, as crush text.
///
/// The map is what a new cluster begins with; `nacre crush` has the verbs to look at it and to change it.
#[derive(Args)]
#[command(after_long_help = "--json: {map, rules: [{pool, rule}]}; map is the crush text.")]
pub(super) struct Crush {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Crush {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.file.file)?;
        warn(&loaded);
        let map = placement::crush_map(&loaded.cluster)?;
        let text = nacre_crush::text::print(&map);
        if self.json.json {
            let rule = |pool| serde_json::json!({ "pool": pool_name(pool), "rule": placement::rule_name(pool) });
            let rules: Vec<_> = loaded.cluster.pools.iter().map(rule).collect();
            out.json(&serde_json::json!({ "map": text, "rules": rules }))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        Ok(Verdict::Good)
    }
}

fn pool_name(pool: &super::schema::Pool) -> &str {
    &pool.name.value.0
}
