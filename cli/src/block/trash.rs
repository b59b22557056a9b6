//! `nacre block trash`: images on their way out, that can still come back.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use nacre_block::{create, directory};
use serde_json::json;

use super::{At, Room, Spot};
use crate::monitors::{moment, span};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Put images aside for a time before they are removed.
#[derive(Args)]
pub(super) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Mv(Mv),
    Ls(Ls),
    Restore(Restore),
    Rm(Rm),
    Purge(Purge),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Mv(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Restore(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
            Verb::Purge(verb) => verb.run(out),
        }
    }
}

pub(super) fn number(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "the number of an image, as `nacre block trash ls` shows it".into())
}

/// Put an image into the trash. Its name is free from then on.
#[derive(Args)]
struct Mv {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    /// How long it is kept at least.
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "1d")]
    keep: u64,
}

impl Run for Mv {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        let id = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            Ok(create::discard(&pool, &name, Duration::from_millis(self.keep)).await?)
        })?;
        writeln!(out, "{id:016x}")?;
        Ok(Verdict::Good)
    }
}

/// List what is in the trash of a pool.
#[derive(Args)]
#[command(after_long_help = "--json: [{id, image, since_ms, until_ms}]")]
struct Ls {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found =
            self.at.with(|cluster| async move { Ok(directory::trashed(&self.pool.open(&cluster).await?).await?) })?;
        if self.json.json {
            let line = |t: &directory::Trashed| json!({ "id": format!("{:016x}", t.id), "image": t.name, "since_ms": t.since_ms, "until_ms": t.until_ms });
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let left = Align::Left;
        let mut table = Table::new(&[("NUMBER", left), ("IMAGE", left), ("SINCE", left), ("KEPT UNTIL", left)]);
        for one in found {
            table.row([format!("{:016x}", one.id), one.name, moment(one.since_ms), moment(one.until_ms)]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Bring an image back.
#[derive(Args)]
struct Restore {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    /// Its number.
    #[arg(value_parser = number)]
    number: u64,
    /// Another name than it had.
    #[arg(long)]
    name: Option<String>,
}

impl Run for Restore {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            Ok(directory::restore(&pool, self.number, self.name.as_deref()).await?)
        })?;
        writeln!(out, "{name}")?;
        Ok(Verdict::Good)
    }
}

/// Remove an image from the trash for good.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    /// Its number.
    #[arg(value_parser = number)]
    number: u64,
    /// Although its time is not over.
    #[arg(long)]
    force: bool,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            Ok(create::purge(&pool, self.number, self.force).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Remove all images whose time in the trash is over.
#[derive(Args)]
struct Purge {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
}

impl Run for Purge {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let gone = self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            let mut gone = Vec::new();
            for one in directory::trashed(&pool).await? {
                match create::purge(&pool, one.id, false).await {
                    Ok(()) => gone.push(one.name),
                    Err(nacre_block::Error::Kept { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(gone)
        })?;
        for name in gone {
            writeln!(out, "{name}")?;
        }
        Ok(Verdict::Good)
    }
}
