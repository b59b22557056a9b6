//! `nacre block create`, `ls`, `info`, `du`, `resize`, `rename`, `rm`, `note`, `fence`: images as they are.

use std::io::Write;

use clap::Args;
use nacre_block::{Image, Use, create, directory};
use serde_json::json;

use super::snap::shown;
use super::{At, Room, ShapeArgs, Spot, bytes, size};
use crate::monitors::moment;
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Make an image of zeros. It takes room as it is written.
#[derive(Args)]
pub(super) struct Create {
    #[command(flatten)]
    at: At,
    /// The image: POOL/IMAGE.
    image: Spot,
    /// How large, as in 100GiB.
    #[arg(long, short, value_parser = size)]
    size: u64,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl Run for Create {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        let shape = self.shape.shape()?;
        self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            Ok(create::create(&pool, &name, self.size, shape).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// List the images of a pool.
#[derive(Args)]
#[command(after_long_help = "--json: [{image, id, size, snapshots, parent}]")]
pub(super) struct Ls {
    #[command(flatten)]
    at: At,
    /// The pool, or POOL/NAMESPACE.
    pool: Room,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found = self.at.with(|cluster| async move {
            let pool = self.pool.open(&cluster).await?;
            let mut found = Vec::new();
            for entry in directory::list(&pool).await? {
                let image = Image::open(&pool, &entry.name).await?;
                found.push((entry, image.header()));
            }
            Ok(found)
        })?;
        if self.json.json {
            let line = |(entry, held): &(directory::Entry, nacre_block::Held)| {
                json!({
                    "image": entry.name, "id": format!("{:016x}", entry.id), "size": held.image.size,
                    "snapshots": held.snaps.len(), "parent": held.image.parent.is_some(),
                })
            };
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new(&[("IMAGE", left), ("SIZE", right), ("SNAPSHOTS", right), ("CLONE", left)]);
        for (entry, held) in found {
            let clone = if held.image.parent.is_some() { "yes" } else { "" };
            table.row([entry.name, bytes(held.image.size), held.snaps.len().to_string(), clone.to_owned()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Show what an image is, and who writes it.
#[derive(Args)]
#[command(after_long_help = "\
--json: {image, id, size, object_size, stripe_unit, stripe_count, data_pool, created_ms, features, flags, parent: {pool, image, snapshot, overlap},
snapshots: [{snapshot, id, size, taken_ms}], notes: {KEY: VALUE}, writer: {session, note}}")]
pub(super) struct Info {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Info {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let spot = self.image.clone();
        let (held, notes, writer, pool, data) = self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            let held = image.header();
            let parent = held.image.parent.as_ref().and_then(|parent| cluster.pool_by_id(parent.pool));
            let pool = parent.map(|pool| pool.name().to_owned()).unwrap_or_default();
            let data = held.image.data_pool.and_then(|id| cluster.pool_by_id(id)).map(|pool| pool.name().to_owned());
            Ok((held, image.notes().await?, image.holder().await?, pool, data))
        })?;
        let head = &held.image;
        if self.json.json {
            let parent = head.parent.as_ref().map(|parent| {
                json!({
                    "pool": pool, "image": format!("{:016x}", parent.image), "snapshot": parent.snap.0,
                    "overlap": parent.overlap,
                })
            });
            let snaps: Vec<_> = held
                .snaps
                .iter()
                .map(|s| json!({ "snapshot": s.name, "id": s.id.0, "size": s.size, "taken_ms": s.taken_ms }))
                .collect();
            let notes: serde_json::Map<_, _> = notes.into_iter().map(|(key, value)| (key, value.into())).collect();
            out.json(&json!({
                "image": spot.to_string(), "id": format!("{:016x}", head.id), "size": head.size,
                "object_size": 1u64 << head.order, "stripe_unit": head.stripe_unit,
                "stripe_count": head.stripe_count, "data_pool": data, "created_ms": head.created_ms, "features": head.features,
                "flags": head.flags, "parent": parent, "snapshots": snaps, "notes": notes,
                "writer": writer.map(|w| json!({ "session": w.session.0, "note": w.note })),
            }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "{spot}  number {:016x}", head.id)?;
        writeln!(out, "size     {} ({} bytes)", bytes(head.size), head.size)?;
        write!(out, "objects  {}", bytes(1 << head.order))?;
        if head.stripe_count > 1 {
            write!(out, ", {} in turn by {}", head.stripe_count, bytes(head.stripe_unit))?;
        }
        match data {
            Some(data) => writeln!(out, ", in pool {data}")?,
            None => writeln!(out)?,
        }
        writeln!(out, "made     {}", moment(head.created_ms))?;
        if head.trim_end > head.size {
            writeln!(out, "         a shrink was not completed; the next resize does it")?;
        }
        if let Some(parent) = &head.parent {
            let shown = bytes(parent.overlap);
            writeln!(
                out,
                "clone    of snapshot {} of image {:016x} in pool {pool}, up to {shown}",
                parent.snap.0, parent.image
            )?;
        }
        for (key, value) in notes {
            writeln!(out, "note     {key} = {value}")?;
        }
        match writer {
            Some(writer) => writeln!(out, "writer   {} (session {})", writer.note, writer.session.0)?,
            None => writeln!(out, "writer   nobody")?,
        }
        for snap in &held.snaps {
            writeln!(out, "snapshot {}  {}  {}", snap.name, bytes(snap.size), moment(snap.taken_ms))?;
        }
        Ok(Verdict::Good)
    }
}

/// Show how much room images take, of a pool or one.
#[derive(Args)]
#[command(after_long_help = "\
Counts what is stored for the image itself: not what it shows of a parent, not what only its snapshots hold.
--json: [{image, size, used}]")]
pub(super) struct Du {
    #[command(flatten)]
    at: At,
    /// A pool, or an image: POOL or POOL/IMAGE.
    what: String,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Du {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let what = self.what.clone();
        let found = self.at.with(|cluster| async move {
            let one = match what.parse::<Spot>() {
                Ok(spot) => {
                    let pool = spot.room.open(&cluster).await?;
                    let found = directory::find(&pool, &spot.image).await;
                    found.is_ok().then_some(spot)
                }
                Err(_) => None,
            };
            let images = match one {
                Some(spot) => vec![(spot.to_string(), spot.open(&cluster).await?)],
                None => {
                    let room: Room = what.parse().map_err(anyhow::Error::msg)?;
                    let pool = room.open(&cluster).await?;
                    let mut images = Vec::new();
                    for entry in directory::list(&pool).await? {
                        images.push((entry.name.clone(), Image::open(&pool, &entry.name).await?));
                    }
                    images
                }
            };
            let mut found = Vec::new();
            for (name, image) in images {
                found.push((name, image.size(), image.used().await?));
            }
            Ok(found)
        })?;
        if self.json.json {
            let line = |(image, size, used): &(String, u64, u64)| json!({ "image": image, "size": size, "used": used });
            out.json(&found.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[("IMAGE", Align::Left), ("SIZE", Align::Right), ("USED", Align::Right)]);
        for (name, size, used) in found {
            table.row([name, bytes(size), bytes(used)]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Make an image larger or smaller, also while it is in use.
#[derive(Args)]
pub(super) struct Resize {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    /// How large it is to be.
    #[arg(long, short, value_parser = size)]
    size: u64,
    /// Shrink it although it holds data past the new end.
    #[arg(long)]
    lose_data: bool,
}

impl Run for Resize {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            Ok(image.resize(self.size, self.lose_data).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Give an image another name.
#[derive(Args)]
pub(super) struct Rename {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    /// Its new name, in the same pool and namespace.
    name: String,
}

impl Run for Rename {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let from = self.image.whole()?.to_owned();
        self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            Ok(directory::rename(&pool, &from, &self.name).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Remove images at once, with all their data. `nacre block trash mv` leaves time to think.
#[derive(Args)]
pub(super) struct Rm {
    #[command(flatten)]
    at: At,
    /// The images.
    #[arg(required = true)]
    images: Vec<Spot>,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        for image in &self.images {
            image.whole()?;
        }
        self.at.with(|cluster| async move {
            for image in &self.images {
                let pool = image.room.open(&cluster).await?;
                create::remove(&pool, &image.image).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Note something about an image; some notes are limits.
#[derive(Args)]
#[command(after_long_help = "\
Limits count for all who use the image, from now on: limit.iops, limit.bytes, and the same with .read or .write behind,
for each second. An empty value takes a note away.")]
pub(super) struct Note {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    /// KEY=VALUE.
    #[arg(required = true, value_name = "KEY=VALUE")]
    notes: Vec<String>,
}

impl Run for Note {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let pairs: Vec<(&str, &str)> = self
            .notes
            .iter()
            .map(|note| note.split_once('=').ok_or_else(|| anyhow::anyhow!("{note:?} is no KEY=VALUE")))
            .collect::<Result<_, _>>()?;
        self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            for (key, value) in pairs {
                image.note(key, value).await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Shut out whoever writes an image. When this is done, nothing of theirs lands any more.
#[derive(Args)]
pub(super) struct Fence {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Fence {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let spot = self.image.clone();
        let fenced = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            Ok(Image::open_for(&pool, &self.image.image, Use::Read).await?.fence().await?)
        })?;
        match fenced {
            Some(holder) => writeln!(out, "{spot}: {} (session {}) is shut out", holder.note, holder.session.0)?,
            None => writeln!(out, "{spot}: nobody writes it")?,
        }
        Ok(Verdict::Good)
    }
}

/// Make an image of its own out of another, or out of a snapshot. The copy of an image has its snapshots too.
#[derive(Args)]
pub(super) struct Copy {
    #[command(flatten)]
    at: At,
    /// The image, or POOL/IMAGE@SNAPSHOT.
    from: Spot,
    /// The new image.
    to: Spot,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl Run for Copy {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.to.whole()?.to_owned();
        let shape = self.shape.shape()?;
        self.at.with(|cluster| async move {
            let from = self.from.open(&cluster).await?;
            let to = self.to.room.open(&cluster).await?;
            Ok(from.copy_to(&to, &name, shape, shown("copying")).await?)
        })?;
        Ok(Verdict::Good)
    }
}

/// Free what only stores zeros. Nobody else may write the image meanwhile.
#[derive(Args)]
pub(super) struct Sparsify {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
}

impl Run for Sparsify {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let freed = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let image = Image::open_for(&pool, &self.image.image, Use::Write).await?;
            let done = image.sparsify(shown("looking")).await;
            image.close().await?;
            Ok(done?)
        })?;
        writeln!(out, "{} freed", bytes(freed))?;
        Ok(Verdict::Good)
    }
}
