//! `nacre crush rule create | remove`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nacre_crush::edit::{EditError, NewRule};
use nacre_crush::model::RuleKind;

use super::{JSON_HELP, Target, change};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Create and remove rules.
#[derive(Args)]
pub(in crate::crush) struct RuleNoun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Create),
    Remove(Remove),
}

/// Create the rule most pools want: each copy or shard in a failure domain of its own.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
struct Create {
    /// The map to change.
    map: PathBuf,
    /// Its name.
    name: String,
    /// The bucket it starts from.
    #[arg(long, default_value = "default", value_name = "BUCKET")]
    root: String,
    /// What no two copies or shards share: a type (host, rack ... or that of devices).
    #[arg(long, default_value = "host", value_name = "TYPE")]
    failure_domain: String,
    /// Only devices of this class.
    #[arg(long)]
    class: Option<String>,
    /// For shards of an erasure-coded pool instead of copies.
    #[arg(long)]
    erasure: bool,
    #[command(flatten)]
    target: Target,
}

/// Remove a rule.
#[derive(Args)]
#[command(after_long_help = JSON_HELP)]
struct Remove {
    /// The map to change.
    map: PathBuf,
    /// Its name.
    name: String,
    #[command(flatten)]
    target: Target,
}

impl Run for RuleNoun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Create(verb) => verb.run(out),
            Verb::Remove(verb) => verb.run(out),
        }
    }
}

impl Run for Create {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            let kind = if self.erasure { RuleKind::Erasure } else { RuleKind::Replicated };
            let id = map.create_rule(&NewRule {
                name: &self.name,
                root: &self.root,
                domain: &self.failure_domain,
                class: self.class.as_deref(),
                kind,
            })?;
            Ok::<_, EditError>(format!("created rule {} (id {id})", self.name))
        })
    }
}

impl Run for Remove {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.map, &self.target, out, |map| {
            let id = map.remove_rule(&self.name)?;
            Ok::<_, EditError>(format!("removed rule {} (id {id})", self.name))
        })
    }
}
