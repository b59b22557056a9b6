//! `nacre block snap`, `clone`, `flatten`: snapshots of images, and images made of them.

use std::io::Write;

use clap::{Args, Subcommand};
use nacre_block::{Image, Use, create};
use serde_json::json;

use super::{At, ShapeArgs, Spot, bytes};
use crate::monitors::moment;
use crate::output::{Align, JsonFlag, Out, Progress, Table};
use crate::run::{Run, Verdict};

/// Freeze images as they are, and go back to that.
#[derive(Args)]
pub(super) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Take),
    Ls(Ls),
    Rename(Rename),
    Rm(Rm),
    Purge(Purge),
    Rollback(Rollback),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Create(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Rename(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
            Verb::Purge(verb) => verb.run(out),
            Verb::Rollback(verb) => verb.run(out),
        }
    }
}

/// Shows steps done of all.
pub(super) fn shown(what: &'static str) -> impl FnMut(u64, u64) {
    let mut bar: Option<(Progress, u64)> = None;
    move |done, all| {
        let (bar, seen) = bar.get_or_insert_with(|| (Progress::new(what, all), 0));
        bar.advance(done.saturating_sub(*seen));
        *seen = done;
    }
}

/// Take a snapshot, also while the image is in use.
#[derive(Args)]
struct Take {
    #[command(flatten)]
    at: At,
    /// POOL/IMAGE@SNAPSHOT.
    snapshot: Spot,
}

impl Run for Take {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.snapshot.snapshot()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.snapshot.room.open(&cluster).await?;
            Ok(Image::open(&pool, &self.snapshot.image).await?.snapshot(&name).await.map(drop)?)
        })?;
        Ok(Verdict::Good)
    }
}

/// List the snapshots of an image.
#[derive(Args)]
#[command(after_long_help = "--json: [{snapshot, id, size, taken_ms, clones}]")]
struct Ls {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let found = self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            let mut found = Vec::new();
            for snap in image.snapshots() {
                let clones = image.children(snap.id).await?.len();
                found.push((snap, clones));
            }
            Ok(found)
        })?;
        if self.json.json {
            let line = |(s, clones): &(nacre_block::Snap, usize)| json!({ "snapshot": s.name, "id": s.id.0, "size": s.size, "taken_ms": s.taken_ms, "clones": clones });
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new(&[("SNAPSHOT", left), ("SIZE", right), ("TAKEN", left), ("CLONES", right)]);
        for (snap, clones) in found {
            table.row([snap.name, bytes(snap.size), moment(snap.taken_ms), clones.to_string()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Give a snapshot another name.
#[derive(Args)]
struct Rename {
    #[command(flatten)]
    at: At,
    /// POOL/IMAGE@SNAPSHOT.
    snapshot: Spot,
    /// Its new name.
    name: String,
}

impl Run for Rename {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let from = self.snapshot.snapshot()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.snapshot.room.open(&cluster).await?;
            Ok(Image::open(&pool, &self.snapshot.image).await?.rename_snapshot(&from, &self.name).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Remove snapshots.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: At,
    /// POOL/IMAGE@SNAPSHOT.
    #[arg(required = true)]
    snapshots: Vec<Spot>,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        for snapshot in &self.snapshots {
            snapshot.snapshot()?;
        }
        self.at.with(|cluster| async move {
            for spot in &self.snapshots {
                let pool = spot.room.open(&cluster).await?;
                Image::open(&pool, &spot.image).await?.remove_snapshot(spot.snapshot()?).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Remove all snapshots of an image.
#[derive(Args)]
struct Purge {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Purge {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            for snap in image.snapshots() {
                image.remove_snapshot(&snap.name).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Make an image what it was when a snapshot was taken. Nobody else may write it meanwhile.
#[derive(Args)]
struct Rollback {
    #[command(flatten)]
    at: At,
    /// POOL/IMAGE@SNAPSHOT.
    snapshot: Spot,
}

impl Run for Rollback {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.snapshot.snapshot()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.snapshot.room.open(&cluster).await?;
            let image = Image::open_for(&pool, &self.snapshot.image, Use::Write).await?;
            let done = image.rollback(&name, shown("going back")).await;
            image.close().await?;
            Ok(done?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Make an image that begins as a snapshot of another, in any pool. It takes room as it is written.
#[derive(Args)]
pub(super) struct Clone {
    #[command(flatten)]
    at: At,
    /// POOL/IMAGE@SNAPSHOT.
    from: Spot,
    /// The new image.
    to: Spot,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl Run for Clone {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let (snapshot, name) = (self.from.snapshot()?.to_owned(), self.to.whole()?.to_owned());
        let shape = self.shape.shape()?;
        self.at.with(|cluster| async move {
            let (from, to) = (self.from.room.open(&cluster).await?, self.to.room.open(&cluster).await?);
            Ok(create::clone(&from, &self.from.image, &snapshot, &to, &name, shape).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Make a clone independent: copy what it still takes from its parent.
#[derive(Args)]
pub(super) struct Flatten {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Flatten {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let spot = self.image.clone();
        let kept = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let image = Image::open_for(&pool, &self.image.image, Use::Write).await?;
            let done = image.flatten(shown("copying")).await;
            let kept = image.snapshots().into_iter().filter(|snap| snap.parent.is_some()).count();
            image.close().await?;
            done?;
            Ok(kept)
        })?;
        if kept > 0 {
            writeln!(
                out,
                "{spot}: {kept} snapshots still look through to the parent; it is free when they are removed"
            )?;
        }
        Ok(Verdict::Good)
    }
}
