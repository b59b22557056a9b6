//! `nacre block`: images from the command line. What a verb does is `nacre_block`'s; here words become calls, and answers
//! lines.
//!
//! - [`image`]: images as they are. [`snap`]: their snapshots, clones. [`trash`]: what is on its way out.
//!   [`lost`]: what has no name. [`object_map`]: which objects exist.
//! - [`stream`]: images into files and back. [`group`]: several at one moment.
//! - [`map`]: images as devices of this machine.
//! - [`mod@bench`], [`top`]: how fast one is, and who is busy. [`open`]: what daemons say of the images they have open.

mod bench;
mod group;
mod image;
mod lost;
mod map;
mod object_map;
pub(crate) mod open;
mod snap;
mod stream;
mod top;
mod trash;

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use nacre_block::Image;
use nacre_block::create::Shape;
use nacre_client::{Cluster, Pool, Settings};

use crate::cluster::Size;
use crate::local::{ConfigArg, monitors_of};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Disks for machines: thin, with snapshots and clones, one writer at a time.
///
/// An image is named POOL/IMAGE, or POOL/NAMESPACE/IMAGE; a snapshot has @SNAPSHOT behind that. Virtual machines reach
/// images through `nacre nbd`, this machine's kernel through `nacre block map`.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(image::Create),
    Ls(image::Ls),
    Info(image::Info),
    Du(image::Du),
    Resize(image::Resize),
    Rename(image::Rename),
    Rm(image::Rm),
    Note(image::Note),
    Fence(image::Fence),
    Snap(snap::Noun),
    Clone(snap::Clone),
    Flatten(snap::Flatten),
    Export(stream::Export),
    Import(stream::Import),
    Diff(stream::Diff),
    Copy(image::Copy),
    Sparsify(image::Sparsify),
    Group(group::Noun),
    Map(map::Map),
    Unmap(map::Unmap),
    Mapped(map::Mapped),
    Bench(bench::Bench),
    Top(top::Top),
    Trash(trash::Noun),
    Lost(lost::Noun),
    ObjectMap(object_map::Noun),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Create(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Info(verb) => verb.run(out),
            Verb::Du(verb) => verb.run(out),
            Verb::Resize(verb) => verb.run(out),
            Verb::Rename(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
            Verb::Note(verb) => verb.run(out),
            Verb::Fence(verb) => verb.run(out),
            Verb::Snap(noun) => noun.run(out),
            Verb::Clone(verb) => verb.run(out),
            Verb::Flatten(verb) => verb.run(out),
            Verb::Export(verb) => verb.run(out),
            Verb::Import(verb) => verb.run(out),
            Verb::Diff(verb) => verb.run(out),
            Verb::Copy(verb) => verb.run(out),
            Verb::Sparsify(verb) => verb.run(out),
            Verb::Group(noun) => noun.run(out),
            Verb::Map(verb) => verb.run(out),
            Verb::Unmap(verb) => verb.run(out),
            Verb::Mapped(verb) => verb.run(out),
            Verb::Bench(verb) => verb.run(out),
            Verb::Top(verb) => verb.run(out),
            Verb::Trash(noun) => noun.run(out),
            Verb::Lost(noun) => noun.run(out),
            Verb::ObjectMap(noun) => noun.run(out),
        }
    }
}

/// Which cluster, and how patient the verb is.
#[derive(Args, Clone)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Give up when the cluster has not answered for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

impl At {
    /// Does something with the cluster.
    pub(crate) fn with<T, F>(&self, does: impl FnOnce(Cluster) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let (folder, monitors) = monitors_of(&self.config)?;
        nacre_net::daemon::current_thread_runtime()?.block_on(async {
            let mut settings = Settings::of_folder(&folder, monitors)?;
            settings.patience = Some(Duration::from_secs(self.patience));
            does(Cluster::connect(settings).await?).await
        })
    }
}

/// A pool and a namespace of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) pool: String,
    pub(crate) namespace: String,
}

impl FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Room, String> {
        let (pool, namespace) = text.split_once('/').unwrap_or((text, ""));
        if pool.is_empty() || namespace.contains('/') {
            return Err("a pool, or POOL/NAMESPACE, was expected".into());
        }
        Ok(Room { pool: pool.to_owned(), namespace: namespace.to_owned() })
    }
}

impl Room {
    pub(crate) async fn open(&self, cluster: &Cluster) -> anyhow::Result<Pool> {
        Ok(cluster.pool(&self.pool).await?.namespace(&self.namespace))
    }
}

/// An image, perhaps a snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) room: Room,
    pub(crate) image: String,
    pub(crate) snapshot: Option<String>,
}

impl FromStr for Spot {
    type Err = String;

    fn from_str(text: &str) -> Result<Spot, String> {
        let (path, snapshot) = match text.split_once('@') {
            Some((path, snapshot)) => (path, Some(snapshot.to_owned())),
            None => (text, None),
        };
        let (room, image) = path.rsplit_once('/').ok_or("POOL/IMAGE was expected, as in `vms/web1`")?;
        if image.is_empty() || snapshot.as_deref() == Some("") {
            return Err("POOL/IMAGE or POOL/IMAGE@SNAPSHOT was expected, as in `vms/web1@monday`".into());
        }
        Ok(Spot { room: room.parse()?, image: image.to_owned(), snapshot })
    }
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/", self.room.pool)?;
        if !self.room.namespace.is_empty() {
            write!(f, "{}/", self.room.namespace)?;
        }
        write!(f, "{}", self.image)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

impl Spot {
    /// Its snapshot, which must be named.
    fn snapshot(&self) -> anyhow::Result<&str> {
        self.snapshot.as_deref().with_context(|| format!("{self} names no snapshot: POOL/IMAGE@SNAPSHOT was expected"))
    }

    /// It must be an image, not a snapshot.
    fn whole(&self) -> anyhow::Result<&str> {
        match &self.snapshot {
            None => Ok(&self.image),
            Some(_) => anyhow::bail!("{self} is a snapshot: an image was expected"),
        }
    }

    /// Opens it to be read.
    async fn open(&self, cluster: &Cluster) -> anyhow::Result<Image> {
        let pool = self.room.open(cluster).await?;
        Ok(match &self.snapshot {
            None => Image::open(&pool, &self.image).await?,
            Some(snapshot) => Image::open_snapshot(&pool, &self.image, snapshot).await?,
        })
    }
}

/// The order of objects of a size.
pub(crate) fn order(object_size: u64) -> anyhow::Result<u8> {
    if !object_size.is_power_of_two() {
        anyhow::bail!("objects have a power of two of bytes, 4KiB to 32MiB; nothing was changed");
    }
    Ok(u8::try_from(object_size.trailing_zeros())?)
}

/// How an image becomes objects.
#[derive(Args, Clone)]
pub(crate) struct ShapeArgs {
    /// How large its objects are: a power of two from 4KiB to 32MiB. As the other's if it is a copy, else 4MiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    object_size: Option<u64>,
    /// Deal its bytes out in units of this size, each to the next of --stripe-count objects. A unit divides an object.
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "stripe_count")]
    stripe_unit: Option<u64>,
    /// To how many objects units are dealt out in turn. 1: no stripes.
    #[arg(long, value_name = "COUNT", requires = "stripe_unit")]
    stripe_count: Option<u64>,
    /// Keep its data in this pool; its name and header stay in the pool it is named by.
    #[arg(long, value_name = "POOL")]
    data_pool: Option<String>,
}

impl ShapeArgs {
    pub(crate) fn shape(&self) -> anyhow::Result<Shape> {
        let order = self.object_size.map(order).transpose()?;
        Ok(Shape { order, stripes: self.stripe_unit.zip(self.stripe_count), data_pool: self.data_pool.clone() })
    }
}

/// `10GiB`, and `10G` for those whose fingers know it: the same.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let long = match text.strip_suffix(['K', 'M', 'G', 'T', 'P']) {
        Some(_) => format!("{text}iB"),
        None => text.to_owned(),
    };
    Size::parse(&long).map(|size| size.0).ok_or_else(|| "a size is a number and a unit, as in 100GiB".into())
}

/// Bytes as a person reads them.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [
        (1_u64 << 60, "EiB"),
        (1 << 50, "PiB"),
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.into_iter().find(|(scale, _)| bytes >= *scale) {
        Some((scale, unit)) => {
            let value = bytes as f64 / scale as f64;
            let digits = if bytes.is_multiple_of(scale) || value >= 100.0 { 0 } else { 1 };
            format!("{value:.digits$} {unit}")
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_pool_namespace_image_and_snapshot() {
        let room = |namespace: &str| Room { pool: "p".into(), namespace: namespace.into() };
        let spot = |room, snapshot: Option<&str>| Spot { room, image: "i".into(), snapshot: snapshot.map(Into::into) };
        for (text, wanted) in
            [("p/i", spot(room(""), None)), ("p/n/i", spot(room("n"), None)), ("p/n/i@s", spot(room("n"), Some("s")))]
        {
            let read: Spot = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read), (text, wanted));
        }
        for bad in ["i", "p/", "/i", "p/n/m/i", "p/i@", ""] {
            assert!(bad.parse::<Spot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        assert_eq!(size("10G"), Ok(10 << 30));
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert!(size("ten").is_err());
        assert_eq!((bytes(512), bytes(1 << 30), bytes(3 << 29)), ("512 B".into(), "1 GiB".into(), "1.5 GiB".into()));
    }
}
