//! `nacre block group`: images whose snapshots are taken at one moment.

use std::io::Write;

use clap::{Args, Subcommand};
use nacre_block::group;
use serde_json::json;

use super::{At, Spot};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Take snapshots of several images at one moment.
///
/// A group is named POOL/GROUP, or POOL/NAMESPACE/GROUP; its images may be anywhere in the cluster.
#[derive(Args)]
pub(super) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Create),
    Ls(Ls),
    Rm(Rm),
    Add(Add),
    Drop(Drop),
    Snap(Snap),
    SnapLs(SnapLs),
    SnapRm(SnapRm),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Create(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
            Verb::Add(verb) => verb.run(out),
            Verb::Drop(verb) => verb.run(out),
            Verb::Snap(verb) => verb.run(out),
            Verb::SnapLs(verb) => verb.run(out),
            Verb::SnapRm(verb) => verb.run(out),
        }
    }
}

/// Make a group without images.
#[derive(Args)]
struct Create {
    #[command(flatten)]
    at: At,
    /// The group.
    group: Spot,
}

impl Run for Create {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.whole()?.to_owned();
        self.at
            .with(|cluster| async move { Ok(group::create(&self.group.room.open(&cluster).await?, &name).await?) })?;
        Ok(Verdict::Good)
    }
}

/// List the groups of a pool with their images.
#[derive(Args)]
#[command(after_long_help = "--json: [{group, images: [name when it was made]}]")]
struct Ls {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: super::Room,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found = self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            let mut found = Vec::new();
            for (name, _) in group::list(&pool).await? {
                let images = group::open(&pool, &name).await?;
                let names: Vec<String> =
                    images.iter().map(|image| format!("{}/{}", image.pool().name(), image.name())).collect();
                found.push((name, names));
            }
            Ok(found)
        })?;
        if self.json.json {
            let line = |(group, images): &(String, Vec<String>)| json!({ "group": group, "images": images });
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        for (name, images) in found {
            writeln!(out, "{name}  {}", images.join(" "))?;
        }
        Ok(Verdict::Good)
    }
}

/// Remove a group; its images and their snapshots stay.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: At,
    /// The group.
    group: Spot,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.whole()?.to_owned();
        self.at
            .with(|cluster| async move { Ok(group::remove(&self.group.room.open(&cluster).await?, &name).await?) })?;
        Ok(Verdict::Good)
    }
}

/// Put images into a group.
#[derive(Args)]
struct Add {
    #[command(flatten)]
    at: At,
    /// The group.
    group: Spot,
    /// The images.
    #[arg(required = true)]
    images: Vec<Spot>,
}

impl Run for Add {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.whole()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.group.room.open(&cluster).await?;
            for image in &self.images {
                image.whole()?;
                group::add(&pool, &name, &image.open(&cluster).await?).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Take images out of a group.
#[derive(Args)]
struct Drop {
    #[command(flatten)]
    at: At,
    /// The group.
    group: Spot,
    /// The images.
    #[arg(required = true)]
    images: Vec<Spot>,
}

impl Run for Drop {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.whole()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.group.room.open(&cluster).await?;
            for image in &self.images {
                image.whole()?;
                group::drop_member(&pool, &name, &image.open(&cluster).await?).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Take a snapshot of all images of a group at one moment, also while they are written.
#[derive(Args)]
struct Snap {
    #[command(flatten)]
    at: At,
    /// POOL/GROUP@SNAPSHOT: each image gets a snapshot of that name.
    group: Spot,
}

impl Run for Snap {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.snapshot()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.group.room.open(&cluster).await?;
            Ok(group::snapshot(&pool, &self.group.image, &name).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// List the snapshots of a group, oldest first.
#[derive(Args)]
#[command(after_long_help = "--json: [{snapshot, images: how many of the group's have it}]")]
struct SnapLs {
    #[command(flatten)]
    at: At,
    /// The group.
    group: Spot,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for SnapLs {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.whole()?.to_owned();
        let found = self.at.with(|cluster| async move {
            Ok(group::snapshots(&self.group.room.open(&cluster).await?, &name).await?)
        })?;
        if self.json.json {
            let line = |(snapshot, images): &(String, usize)| json!({ "snapshot": snapshot, "images": images });
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[("SNAPSHOT", Align::Left), ("IMAGES", Align::Right)]);
        for (snapshot, images) in found {
            table.row([snapshot, images.to_string()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Remove a snapshot of a group from all its images; from none, if one of them has clones of it.
#[derive(Args)]
struct SnapRm {
    #[command(flatten)]
    at: At,
    /// POOL/GROUP@SNAPSHOT.
    group: Spot,
}

impl Run for SnapRm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.group.snapshot()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.group.room.open(&cluster).await?;
            Ok(group::remove_snapshot(&pool, &self.group.image, &name).await?)
        })?;
        Ok(Verdict::Good)
    }
}
