//! Images made, cloned, resized and removed.
//!
//! Order of steps: what is pointed to comes first and goes last. So a crash leaves an object that nobody finds or a clone
//! entered with its parent that was never made; never a name without an image, nor an image whose parent may go.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::Pool;
use nacre_client::class::code;
use nacre_client::class::image::{Child, FEATURE_MAP, Image as Head, ORDERS, Parent, STRIPES_MAX};

use crate::directory;
use crate::error::{Error, refusal};
use crate::header::Header;
use crate::image::{ABREAST, Image, Use, View, pool_of};
use crate::object_map::{Change, parts};

/// 4 MiB.
pub const ORDER: u8 = 22;
/// The largest image: 16 EiB, less the largest set of objects that bytes are dealt out to. So the end of each object of an
/// image is a number of 64 bits, also where the image ends in the middle of it.
pub const LARGEST: u64 = u64::MAX - (STRIPES_MAX << *ORDERS.end()) + 1;

fn check_size(size: u64) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Size { what: format!("a size of {size} bytes"), why: why.to_owned() });
    match size {
        0 => wrong("an image has at least one byte"),
        _ if size > LARGEST => wrong("an image has at most 16 EiB less 32 GiB"),
        _ if !size.is_multiple_of(512) => wrong("it must be a multiple of 512 bytes"),
        _ => Ok(()),
    }
}

/// How an image's bytes become objects; what is not said is as it usually is, or as the image has it that is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Objects have 2 to the power of this many bytes.
    pub order: Option<u8>,
    /// Bytes of a stripe's unit, and objects that units are dealt out to in turn.
    pub stripes: Option<(u64, u64)>,
    /// The name of the pool of the data objects, if it is not the image's.
    pub data_pool: Option<String>,
}

impl From<u8> for Shape {
    fn from(order: u8) -> Shape {
        Shape::from(Some(order))
    }
}

impl From<Option<u8>> for Shape {
    fn from(order: Option<u8>) -> Shape {
        Shape { order, ..Shape::default() }
    }
}

impl Shape {
    /// What is not said is as another image has it; where its data lies must be said.
    pub(crate) fn or_as(self, other: &Head) -> Shape {
        let theirs = (other.stripe_count > 1).then_some((other.stripe_unit, other.stripe_count));
        // Stripes fit objects of their size.
        let stripes = self.stripes.or(theirs.filter(|_| self.order.is_none_or(|order| order == other.order)));
        Shape { order: self.order.or(Some(other.order)), stripes, data_pool: self.data_pool }
    }

    /// Puts it into a header.
    async fn fill(self, pool: &Pool, head: Head) -> Result<Head, Error> {
        let order = self.order.unwrap_or(ORDER);
        check_order(order)?;
        let (stripe_unit, stripe_count) = self.stripes.filter(|(_, count)| *count != 1).unwrap_or_default();
        let data_pool = match self.data_pool {
            None => None,
            Some(name) => Some(pool.cluster().pool(&name).await?.id()).filter(|id| *id != pool.id()),
        };
        let head = Head { order, stripe_unit, stripe_count, data_pool, features: FEATURE_MAP, ..head };
        if head.is_well_laid_out() {
            return Ok(head);
        }
        let what = format!("{stripe_count} stripes of {stripe_unit} bytes");
        let why = format!(
            "a unit divides an object of 2^{order} bytes and has 512 at least, and 2 to {STRIPES_MAX} take turns"
        );
        Err(Error::Size { what, why })
    }
}

fn check_order(order: u8) -> Result<(), Error> {
    if ORDERS.contains(&order) {
        return Ok(());
    }
    let why = format!("objects have 2^{} to 2^{} bytes (4 KiB to 32 MiB)", ORDERS.start(), ORDERS.end());
    Err(Error::Size { what: format!("order {order}"), why })
}

fn number() -> u64 {
    rand::random::<u64>().max(1)
}

/// Makes an image of zeros.
pub async fn create(pool: &Pool, name: &str, size: u64, shape: impl Into<Shape>) -> Result<(), Error> {
    check_size(size)?;
    let head = shape.into().fill(pool, Head { size, ..Head::default() }).await?;
    make(pool, name, head).await.map(drop)
}

async fn make(pool: &Pool, name: &str, head: Head) -> Result<u64, Error> {
    directory::check("an image", name)?;
    match directory::find(pool, name).await {
        Err(Error::NoImage { .. }) => {}
        Ok(_) => return Err(Error::Exists { name: name.to_owned() }),
        Err(error) => return Err(error),
    }
    let id = if head.id == 0 { number() } else { head.id };
    let header = Header::of(pool, id);
    header.create(&Head { id, name: name.to_owned(), ..head }).await?;
    if let Err(error) = directory::add(pool, name, id).await {
        if let Error::Exists { .. } = error {
            header.remove().await?;
        }
        return Err(error);
    }
    Ok(id)
}

/// Makes an image that begins as a snapshot of another, in any pool of the cluster.
pub async fn clone(
    from: &Pool,
    image: &str,
    snapshot: &str,
    to: &Pool,
    name: &str,
    shape: impl Into<Shape>,
) -> Result<(), Error> {
    directory::check("an image", name)?;
    let parent = directory::find(from, image).await?;
    let header = Header::of(from, parent);
    let held = header.get().await?;
    let snap = held.snaps.iter().find(|snap| snap.name == snapshot);
    let snap = snap.ok_or_else(|| Error::NoSnap { image: image.to_owned(), snap: snapshot.to_owned() })?;
    let id = number();
    let head = shape.into().or_as(&held.image).fill(to, Head { id, size: snap.size, ..Head::default() }).await?;
    let child = Child { snap: snap.id, pool: to.id(), namespace: to.namespace_name().to_vec().into(), image: id };
    header.child_add(&child).await?;
    let shown = Parent {
        pool: from.id(),
        namespace: from.namespace_name().to_vec().into(),
        image: parent,
        snap: snap.id,
        overlap: snap.size,
    };
    match make(to, name, Head { parent: Some(shown), ..head }).await {
        Ok(_) => Ok(()),
        Err(error) => {
            header.child_remove(&child).await?;
            Err(error)
        }
    }
}

impl Image {
    /// Changes the size. A shrink that would lose data is refused unless `lose`.
    pub async fn resize(&self, size: u64, lose: bool) -> Result<(), Error> {
        check_size(size)?;
        self.trim().await?;
        let view = self.view();
        if size == view.size {
            return Ok(());
        }
        if size < view.size && !lose && self.holds_past(&view, size).await? {
            return Err(Error::LosesData { image: self.name(), size });
        }
        match self.0.header.resize(size, view.size).await {
            Err(error) if refusal(&error) == Some(code::CONDITION) => {
                self.refresh().await?;
                return Err(Error::Raced { image: self.name() });
            }
            done => done?,
        }
        if !self.announce_to_writer().await? {
            let undone = "the size is changed, and what was cut off is freed when it is resized again";
            return Err(Error::WriterSilent { image: self.name(), undone });
        }
        self.trim().await
    }

    /// Is anything of this image's own stored past a size, or does the parent show there.
    async fn holds_past(&self, view: &View, size: u64) -> Result<bool, Error> {
        let layout = view.layout;
        for part in parts(layout.first(size)..layout.objects(view.size)) {
            let looks = self.existing(view, part).await?.into_iter().map(|index| async move {
                let kept = layout.below(index, size);
                let end =
                    self.stored(view, index).await?.map_or(0, |stat| stat.size).min(layout.below(index, view.size));
                // Stored zeros are nothing to lose.
                for place in layout.places(index, kept, end.saturating_sub(kept)) {
                    let tail = self.read_unlimited(place.offset, place.len).await?;
                    if tail.iter().any(|byte| *byte != 0) {
                        return Ok(true);
                    }
                }
                Ok::<_, Error>(false)
            });
            let mut looks = stream::iter(looks).buffer_unordered(ABREAST);
            while let Some(found) = looks.try_next().await? {
                if found {
                    return Ok(true);
                }
            }
        }
        Ok(view.parent.as_ref().is_some_and(|parent| parent.overlap > size))
    }

    /// Frees what a shrink left over.
    pub(crate) async fn trim(&self) -> Result<(), Error> {
        self.refresh().await?;
        let view = self.view();
        if view.held.image.trim_end <= view.size {
            return Ok(());
        }
        self.as_cutter(self.trim_alone()).await
    }

    /// The same, by one who has the right to cut.
    async fn trim_alone(&self) -> Result<(), Error> {
        // Whoever shrank it may not have heard that the writer knows: what it writes there must not come after the cut.
        if !self.announce_to_writer().await? {
            let undone = "what was cut off is not freed yet; resize it again";
            return Err(Error::WriterSilent { image: self.name(), undone });
        }
        self.refresh().await?;
        let view = self.view();
        let end = view.held.image.trim_end;
        // Another had the right before, and did it.
        if end <= view.size {
            return Ok(());
        }
        self.shrink_map(&view, end).await?;
        self.cut(&view, view.size, end, true).await?;
        match self.0.header.trimmed(view.size).await {
            Err(error) if refusal(&error) == Some(code::CONDITION) => {}
            done => done?,
        }
        self.announce().await.map(drop)
    }

    /// Removes all that lies from one offset to another, outside the image; the map is told, if there is to be one still.
    async fn cut(&self, view: &View, from: u64, to: u64, mapped: bool) -> Result<(), Error> {
        let layout = view.layout;
        for part in parts(layout.first(from)..layout.objects(to)) {
            let due = self.existing(view, part).await?;
            let due: Vec<u64> = due.into_iter().filter(|index| layout.below(*index, from) < layout.object()).collect();
            if mapped {
                self.change_all(&due, Change::Touched).await?;
            }
            let cuts = due.iter().map(|index| async move {
                let object = self.object(*index).keeping(&view.keeps);
                let done = match layout.below(*index, from) {
                    0 => object.remove().await,
                    kept => {
                        let zero = nacre_client::Op::Zero { offset: kept, len: layout.object() - kept };
                        object.execute(vec![zero]).await.map(drop)
                    }
                };
                match done {
                    Err(error) if !crate::error::is_absent(&error) => Err(Error::from(error)),
                    _ => Ok(()),
                }
            });
            stream::iter(cuts).buffer_unordered(ABREAST).try_collect::<()>().await?;
            if mapped {
                let gone: Vec<u64> = due.into_iter().filter(|index| layout.below(*index, from) == 0).collect();
                self.change_all(&gone, Change::Gone).await?;
            }
        }
        Ok(())
    }
}

/// Removes an image at once.
pub async fn remove(pool: &Pool, name: &str) -> Result<(), Error> {
    let image = Image::open_for(pool, name, Use::Write).await?;
    if let Err(error) = removable(&image) {
        image.close().await?;
        return Err(error);
    }
    let id = directory::discard(pool, name, Duration::ZERO).await?;
    erase(pool, image).await?;
    directory::forget(pool, id).await
}

fn removable(image: &Image) -> Result<(), Error> {
    let count = image.view().held.snaps.len();
    if count > 0 { Err(Error::HasSnaps { image: image.name(), count }) } else { Ok(()) }
}

/// Moves an image to the trash, where it is kept for at least so long.
pub async fn discard(pool: &Pool, name: &str, keep: Duration) -> Result<u64, Error> {
    // Nobody may be writing it.
    let image = Image::open_for(pool, name, Use::Write).await?;
    let done = directory::discard(pool, name, keep).await;
    image.close().await?;
    done
}

/// Removes an image from the trash for good.
pub async fn purge(pool: &Pool, id: u64, force: bool) -> Result<(), Error> {
    let found = directory::trashed(pool).await?.into_iter().find(|one| one.id == id);
    let found = found.ok_or_else(|| Error::NoImage { name: format!("{id:016x} in the trash") })?;
    let left = found.until_ms.saturating_sub(directory::now_ms());
    if left > 0 && !force {
        return Err(Error::Kept { name: found.name, seconds: left.div_ceil(1000) });
    }
    match Image::open_id(pool, id, &found.name, None).await {
        Ok(image) => {
            image.acquire(Use::Write).await?;
            if let Err(error) = removable(&image) {
                image.close().await?;
                return Err(error);
            }
            erase(pool, image).await?;
        }
        // A removal before this one came so far.
        Err(Error::NoImage { .. }) => {}
        Err(error) => return Err(error),
    }
    directory::forget(pool, id).await
}

/// Removes an image that is held and has no name; one that never had data has none to be looked for.
pub(crate) async fn erase_nameless(pool: &Pool, image: Image, has_data: bool) -> Result<(), Error> {
    removable(&image)?;
    erase_what(pool, image, has_data).await
}

async fn erase(pool: &Pool, image: Image) -> Result<(), Error> {
    erase_what(pool, image, true).await
}

/// Removes the data, then what it was cloned from is told, then the header.
async fn erase_what(pool: &Pool, image: Image, has_data: bool) -> Result<(), Error> {
    let view = image.view();
    let end = view.held.image.size.max(view.held.image.trim_end);
    if has_data {
        image.cut(&view, 0, end, false).await?;
        image.remove_map(&view).await?;
    }
    if let Some(parent) = &view.held.image.parent {
        image.leave(pool, parent).await?;
    }
    // The right to write goes with the header.
    image.deafen().await;
    Ok(image.0.header.remove().await?)
}

impl Image {
    /// Tells a parent that this image is no longer its clone.
    pub(crate) async fn leave(&self, pool: &Pool, parent: &Parent) -> Result<(), Error> {
        let Some(of) = pool_of(pool, parent) else { return Ok(()) };
        let namespace = pool.namespace_name().to_vec().into();
        let child = Child { snap: parent.snap, pool: pool.id(), namespace, image: self.id() };
        match Header::of(&of, parent.image).child_remove(&child).await {
            Err(error) if refusal(&error) == Some(code::ABSENT) => Ok(()),
            done => Ok(done?),
        }
    }
}
