//! Images made, cloned, resized and removed.
//!
//! Order of steps: what is pointed to comes first and goes last. So a crash leaves an object that nobody finds or a clone
//! entered with its parent that was never made; never a name without an image, nor an image whose parent may go.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::Pool;
use nacre_client::class::code;
use nacre_client::class::image::{Child, Image as Head, ORDERS, Parent};

use crate::directory;
use crate::error::{Error, refusal};
use crate::header::Header;
use crate::image::{ABREAST, Image, Use, View, pool_of};
use crate::layout::objects;

/// 4 MiB.
pub const ORDER: u8 = 22;
/// The largest image.
pub const LARGEST: u64 = 1 << 62;

fn check_size(size: u64) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Size { what: format!("a size of {size} bytes"), why: why.to_owned() });
    match size {
        0 => wrong("an image has at least one byte"),
        _ if size > LARGEST => wrong("an image has at most 4 EiB"),
        _ if !size.is_multiple_of(512) => wrong("it must be a multiple of 512 bytes"),
        _ => Ok(()),
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
pub async fn create(pool: &Pool, name: &str, size: u64, order: u8) -> Result<(), Error> {
    check_size(size)?;
    make(pool, name, Head { size, order, ..Head::default() }).await.map(drop)
}

async fn make(pool: &Pool, name: &str, head: Head) -> Result<u64, Error> {
    directory::check("an image", name)?;
    check_order(head.order)?;
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
    order: Option<u8>,
) -> Result<(), Error> {
    directory::check("an image", name)?;
    let parent = directory::find(from, image).await?;
    let header = Header::of(from, parent);
    let held = header.get().await?;
    let snap = held.snaps.iter().find(|snap| snap.name == snapshot);
    let snap = snap.ok_or_else(|| Error::NoSnap { image: image.to_owned(), snap: snapshot.to_owned() })?;
    check_order(order.unwrap_or(held.image.order))?;
    let id = number();
    let child = Child { snap: snap.id, pool: to.id(), namespace: to.namespace_name().to_vec().into(), image: id };
    header.child_add(&child).await?;
    let shown = Parent {
        pool: from.id(),
        namespace: from.namespace_name().to_vec().into(),
        image: parent,
        snap: snap.id,
        overlap: snap.size,
    };
    let order = order.unwrap_or(held.image.order);
    let head = Head { id, size: snap.size, order, parent: Some(shown), ..Head::default() };
    match make(to, name, head).await {
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
        let (first, last) = (size >> view.order, objects(view.order, view.size));
        let looks = (first..last).map(|index| async move {
            let end = self.stored(view, index).await?.map_or(0, |stat| (index << view.order) + stat.size);
            if end <= size {
                return Ok(false);
            }
            // Stored zeros are nothing to lose.
            let from = size.max(index << view.order);
            let tail = self.read_unlimited(from, (end.min(view.size)).saturating_sub(from)).await?;
            Ok::<_, Error>(tail.iter().any(|byte| *byte != 0))
        });
        let mut looks = stream::iter(looks).buffer_unordered(ABREAST);
        while let Some(found) = looks.try_next().await? {
            if found {
                return Ok(true);
            }
        }
        Ok(view.parent.as_ref().is_some_and(|parent| parent.overlap > size))
    }

    /// Frees what a shrink left over.
    pub(crate) async fn trim(&self) -> Result<(), Error> {
        self.refresh().await?;
        let view = self.view();
        let end = view.held.image.trim_end;
        if end <= view.size {
            return Ok(());
        }
        self.cut(&view, view.size, end).await?;
        match self.0.header.trimmed(view.size).await {
            Err(error) if refusal(&error) == Some(code::CONDITION) => {}
            done => done?,
        }
        self.announce().await.map(drop)
    }

    /// Removes all that lies from one offset to another, outside the image.
    async fn cut(&self, view: &View, from: u64, to: u64) -> Result<(), Error> {
        let order = view.order;
        let within = from & ((1 << order) - 1);
        if within > 0 {
            let zero = nacre_client::Op::Zero { offset: within, len: (1 << order) - within };
            let object = self.object(from >> order).keeping(&view.keeps);
            match object.execute(vec![zero]).await {
                Err(error) if !crate::error::is_absent(&error) => return Err(error.into()),
                _ => {}
            }
        }
        let removals = (objects(order, from)..objects(order, to)).map(|index| async move {
            match self.object(index).keeping(&view.keeps).remove().await {
                Err(error) if !crate::error::is_absent(&error) => Err(Error::from(error)),
                _ => Ok(()),
            }
        });
        stream::iter(removals).buffer_unordered(ABREAST).try_collect::<()>().await
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
        image.cut(&view, 0, end).await?;
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
