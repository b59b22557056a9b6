//! `nacre block object-map`: whether what is written down of an image's objects is true of them, and writing it anew.

use std::io::Write;

use clap::{Args, Subcommand};
use nacre_block::object_map::Checked;
use nacre_block::{Image, Use};
use serde_json::json;

use super::snap::shown;
use super::{At, Spot};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Check, make or remove the object map of an image: which objects exist, and when each last changed.
///
/// It is kept by itself: with it, what goes over a whole image (du, diff, export, resize, rm) looks at those objects only
/// that exist or changed.
#[derive(Args)]
pub(super) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(Check),
    Rebuild(Rebuild),
    Rm(Rm),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Check(verb) => verb.run(out),
            Verb::Rebuild(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
        }
    }
}

/// Compare the map with each object, for the image and each of its snapshots. Says no if an object is missed: then the map
/// is asked no more until it is rebuilt.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{snapshot (null: the image itself), used, asked, objects, missed, maybe}]. used: there is a map; asked: it may be
believed (a snapshot older than its map has none); maybe: objects it names that do not exist, which cost a look each.")]
struct Check {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Check {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        let found = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let image = Image::open(&pool, &name).await?;
            let mut found: Vec<(Option<String>, Checked)> = Vec::new();
            for snap in image.snapshots() {
                let frozen = Image::open_snapshot(&pool, &name, &snap.name).await?;
                found.push((Some(snap.name), frozen.check_map(shown("looking")).await?));
            }
            found.push((None, image.check_map(shown("looking")).await?));
            if found.iter().any(|(_, checked)| checked.missed > 0) {
                image.distrust_map().await?;
            }
            Ok(found)
        })?;
        let missed: u64 = found.iter().map(|(_, checked)| checked.missed).sum();
        if self.json.json {
            let line = |(snapshot, c): &(Option<String>, Checked)| {
                json!({
                    "snapshot": snapshot, "used": c.used, "asked": c.asked, "objects": c.objects, "missed": c.missed,
                    "maybe": c.maybe,
                })
            };
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
        } else {
            let (left, right) = (Align::Left, Align::Right);
            let columns = [("OF", left), ("MAP", left), ("OBJECTS", right), ("MISSED", right), ("MAYBE", right)];
            let mut table = Table::new(&columns);
            for (snapshot, c) in &found {
                let state = match (c.used, c.asked, c.missed) {
                    (false, ..) => "none",
                    (_, false, _) => "not asked",
                    (_, _, 0) => "good",
                    _ => "bad",
                };
                let of = snapshot.as_ref().map_or_else(|| "the image".to_owned(), |name| format!("@{name}"));
                let numbers = [c.objects, c.missed, c.maybe].map(|n| if c.asked { n.to_string() } else { "-".into() });
                let [objects, missed, maybe] = numbers;
                table.row([of, state.to_owned(), objects, missed, maybe]);
            }
            table.print(out)?;
            if missed > 0 {
                writeln!(out, "the map is asked no more: `nacre block object-map rebuild`")?;
            }
        }
        Ok(if missed == 0 { Verdict::Good } else { Verdict::Bad })
    }
}

/// Write the map anew from the objects, also where there was none. Nobody else may write the image meanwhile.
#[derive(Args)]
struct Rebuild {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Rebuild {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let image = Image::open_for(&pool, &name, Use::Write).await?;
            let done = image.rebuild_map(shown("looking")).await;
            image.close().await?;
            Ok(done?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Keep no map any more. Nobody else may write the image meanwhile.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let image = Image::open_for(&pool, &name, Use::Write).await?;
            let done = image.drop_map().await;
            image.close().await?;
            Ok(done?)
        })?;
        Ok(Verdict::Good)
    }
}
