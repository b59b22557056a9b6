//! `nacre crush tunables`.

use std::path::PathBuf;

use clap::Args;
use nacre_crush::edit::{EditError, Profile};

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Set the tunables of a map, by profile or one by one. May move much data: compare before use.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
pub(in crate::crush) struct Tunables {
    /// The map to change.
    map: PathBuf,
    /// All of them, as a release of Ceph had them: argonaut, bobtail, firefly, hammer, jewel.
    #[arg(long, required_unless_present = "set")]
    profile: Option<String>,
    /// One of them (choose_total_tries ...); may be given for several, after the profile.
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], action = clap::ArgAction::Append)]
    set: Vec<String>,
    #[command(flatten)]
    target: Target,
}

impl Run for Tunables {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let mut numbers = Vec::new();
        for pair in self.set.chunks(2) {
            let [name, value] = pair else { continue };
            let number = value.parse::<u32>();
            numbers.push((
                name,
                number.map_err(|_| anyhow::anyhow!("--set {name} {value}: a tunable is a whole number"))?,
            ));
        }
        change(&self.map, &self.target, out, |map| {
            let mut done = Vec::new();
            if let Some(name) = &self.profile {
                map.set_profile(name.parse::<Profile>()?);
                done.push(format!("profile {name}"));
            }
            for (name, value) in numbers {
                map.set_tunable(name, value)?;
                done.push(format!("{name} {value}"));
            }
            Ok::<_, EditError>(format!("tunables set: {}", done.join(", ")))
        })
    }
}
