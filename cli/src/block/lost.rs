//! `nacre block lost`: images without a name, as a crash in the middle of making one leaves them.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use nacre_block::lost::{self, Lost};
use nacre_client::Pool;
use serde_json::json;

use super::trash::number;
use super::{At, Room, bytes};
use crate::monitors::{moment, span};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Find images that no name leads to, and give them one, or remove them.
#[derive(Args)]
pub(super) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(Ls),
    Restore(Restore),
    Rm(Rm),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Ls(verb) => verb.run(out),
            Verb::Restore(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
        }
    }
}

#[derive(Args)]
struct Where {
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    /// Only what is older: a younger one may be about to get its name.
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "1h")]
    age: u64,
}

impl Where {
    async fn find(&self, pool: &Pool) -> anyhow::Result<Vec<Lost>> {
        Ok(lost::find(pool, Duration::from_millis(self.age)).await?)
    }
}

/// List them. Looks at the name of every object of the pool.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{id, image, size, objects, created_ms}]; image is the name it was made under, objects how many hold data.")]
struct Ls {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found =
            self.at.with(|cluster| async move { self.place.find(&self.place.pool.open(&cluster).await?).await })?;
        if self.json.json {
            let line = |one: &Lost| {
                json!({
                    "id": format!("{:016x}", one.id), "image": one.name, "size": one.size, "objects": one.objects,
                    "created_ms": one.created_ms,
                })
            };
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table =
            Table::new(&[("NUMBER", left), ("MADE AS", left), ("SIZE", right), ("OBJECTS", right), ("MADE", left)]);
        for one in found {
            let number = format!("{:016x}", one.id);
            table.row([number, one.name, bytes(one.size), one.objects.to_string(), moment(one.created_ms)]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Give one a name again.
#[derive(Args)]
struct Restore {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    /// Its number.
    #[arg(value_parser = number)]
    number: u64,
    /// Another name than it was made under.
    #[arg(long)]
    name: Option<String>,
}

impl Run for Restore {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            Ok(lost::restore(&pool, self.number, self.name.as_deref()).await?)
        })?;
        writeln!(out, "{name}")?;
        Ok(Verdict::Good)
    }
}

/// Remove those that never held data, or one by its number, with its data.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    place: Where,
    /// Its number.
    #[arg(value_parser = number)]
    number: Option<u64>,
}

impl Run for Rm {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let gone = self.at.with(|cluster| async move {
            let pool = self.place.pool.open(&cluster).await?;
            let found = self.place.find(&pool).await?.into_iter();
            let due: Vec<Lost> = match self.number {
                None => found.filter(|one| one.objects == 0).collect(),
                Some(number) => {
                    let due: Vec<Lost> = found.filter(|one| one.id == number).collect();
                    anyhow::ensure!(
                        !due.is_empty(),
                        "nothing of that number is lost, or it is too young; nothing was changed"
                    );
                    due
                }
            };
            for one in &due {
                lost::remove(&pool, one).await?;
            }
            Ok(due)
        })?;
        for one in gone {
            writeln!(out, "{:016x} {}", one.id, one.name)?;
        }
        Ok(Verdict::Good)
    }
}
