//! An open image: read, write, zero, flush.
//!
//! A handle is a [`View`] of the header and the way to the objects. The view changes when the header does: a handle that
//! writes, or is asked to, hears of it by a watch and answers only when nothing it does is of the old view any more.
//!
//! Invariants:
//! 1. What changes data holds the gate for reading and takes the view inside; what changes the view holds it for writing.
//!    So between a change of the header that was confirmed and the next write there is no write of the old view.
//! 2. A handle that has lost the right to write says so for ever; a new one must be opened.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use bytes::{Bytes, BytesMut};
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, StreamExt};
use nacre_client::class::image::{FEATURE_MAP, Held, Parent};
use nacre_client::{Object, Pool, SnapContext, SnapId};

use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::directory;
use crate::error::{Error, is_fenced, refusal};
use crate::header::{Header, data_prefix};
use crate::layout::{Layout, Piece};
use crate::limit::{LIMITS, Limiter};
use crate::meter::Meter;
use crate::object::padded;
use crate::object_map::Marks;
use crate::owner::{Hold, Listener, Rights};

/// Objects worked on at a time by what goes over a whole image.
pub(crate) const ABREAST: usize = 16;

/// What a handle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// To be read.
    #[default]
    Read,
    /// To be written, if nobody else does, or whoever does lets go when asked. One who does not answer is shut out.
    Write,
    /// To be written in any case: whoever writes it is shut out.
    Seize,
}

/// What is known of an image.
pub(crate) struct View {
    pub(crate) held: Held,
    /// Which snapshot is read; none: the head.
    pub(crate) at: Option<SnapId>,
    pub(crate) size: u64,
    pub(crate) layout: Layout,
    /// What writes must keep.
    pub(crate) keeps: Arc<SnapContext>,
    pub(crate) parent: Option<Shown>,
}

/// A parent that shows through.
pub(crate) struct Shown {
    pub(crate) image: Image,
    pub(crate) of: Parent,
    pub(crate) overlap: u64,
}

impl View {
    /// Is it the parent of this view.
    pub(crate) fn is_parent(&self, of: &Parent) -> bool {
        self.parent.as_ref().is_some_and(|shown| same(&shown.of, of))
    }
}

/// The same snapshot of the same image, whatever shows of it.
pub(crate) fn same(a: &Parent, b: &Parent) -> bool {
    (a.pool, &a.namespace, a.image, a.snap) == (b.pool, &b.namespace, b.image, b.snap)
}

/// An open image. Cheap to clone; all clones are one handle.
#[derive(Clone)]
pub struct Image(pub(crate) Arc<Inner>);

/// An image that goes when its last [`Image`] does.
#[derive(Clone)]
pub struct WeakImage(Weak<Inner>);

impl WeakImage {
    /// The image, if it is still open.
    pub fn upgrade(&self) -> Option<Image> {
        self.0.upgrade().map(Image)
    }
}

impl std::fmt::Debug for WeakImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakImage")
    }
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    /// Where its data objects are, and its snapshots' numbers come from.
    pub(crate) data: Pool,
    pub(crate) id: u64,
    pub(crate) header: Header,
    prefix: String,
    view: RwLock<Arc<View>>,
    pub(crate) gate: Arc<tokio::sync::RwLock<()>>,
    pub(crate) rights: Mutex<Rights>,
    pub(crate) listener: Mutex<Option<Listener>>,
    pub(crate) limiter: Limiter,
    pub(crate) meter: Arc<Meter>,
    cache: OnceLock<Cache>,
    ahead: Ahead,
    pub(crate) marks: Marks,
    /// How many want to remove, or remove, what lies past its end.
    pub(crate) cutting: AtomicUsize,
    /// Told when the size changes.
    resized: tokio::sync::watch::Sender<u64>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({})", self.name())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listener.task.abort();
        }
    }
}

/// See [`Image::changes`].
pub(crate) struct Changing<'a> {
    ahead: &'a Ahead,
    offset: u64,
    len: u64,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.ahead.forget(self.offset, self.len);
    }
}

/// Features this release knows.
const KNOWN: u64 = FEATURE_MAP;

async fn look(
    pool: &Pool,
    header: &Header,
    name: &str,
    at: Option<SnapId>,
    before: Option<&View>,
) -> Result<View, Error> {
    let held = header.get().await.map_err(|error| match error {
        Error::Cluster(error) if refusal(&error) == Some(nacre_client::class::code::ABSENT) => {
            Error::NoImage { name: name.to_owned() }
        }
        other => other,
    })?;
    let unknown = held.image.features & !KNOWN;
    if unknown != 0 {
        return Err(Error::Features { image: name.to_owned(), features: unknown });
    }
    let (size, parent) = match at {
        None => (held.image.size, held.image.parent.clone()),
        Some(id) => {
            let snap = held.snaps.iter().find(|snap| snap.id == id);
            let snap = snap.ok_or_else(|| Error::NoSnap { image: name.to_owned(), snap: id.0.to_string() })?;
            (snap.size, snap.parent.clone())
        }
    };
    let parent = match parent {
        None => None,
        Some(of) => {
            let known = before.and_then(|view| view.parent.as_ref()).filter(|shown| same(&shown.of, &of));
            let image = match known {
                Some(shown) => shown.image.clone(),
                None => open_parent(pool.clone(), name.to_owned(), of.clone()).await?,
            };
            Some(Shown { image, overlap: of.overlap, of })
        }
    };
    let snaps = held.snaps.iter().rev().map(|snap| snap.id).collect();
    let keeps = Arc::new(SnapContext { seq: held.image.snap_seq, snaps });
    if !held.image.is_well_laid_out() {
        let why = "its objects are laid out in a way that cannot be".to_owned();
        return Err(Error::Damaged { what: format!("the header of image {name}"), why });
    }
    Ok(View { at, size, layout: Layout::of(&held.image), keeps, parent, held })
}

/// The pool a parent is in.
pub(crate) fn pool_of(pool: &Pool, of: &Parent) -> Option<Pool> {
    Some(pool.cluster().pool_by_id(of.pool)?.namespace(&String::from_utf8_lossy(&of.namespace)))
}

/// Opens a parent, which may be a clone itself.
fn open_parent(pool: Pool, child: String, of: Parent) -> Boxed<'static, Image> {
    Box::pin(async move {
        let missing = |why: String| Error::NoParent { image: child.clone(), why };
        let pool = pool_of(&pool, &of).ok_or_else(|| missing(format!("there is no pool number {}", of.pool.0)))?;
        Image::open_id(&pool, of.image, &format!("number {:016x}", of.image), Some(of.snap))
            .await
            .map_err(|error| missing(error.to_string()))
    })
}

/// A future of what may call itself.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl Image {
    /// Opens an image to read it.
    pub async fn open(pool: &Pool, name: &str) -> Result<Image, Error> {
        let id = directory::find(pool, name).await?;
        Image::open_id(pool, id, name, None).await
    }

    /// Opens a snapshot of an image.
    pub async fn open_snapshot(pool: &Pool, name: &str, snapshot: &str) -> Result<Image, Error> {
        let id = directory::find(pool, name).await?;
        let held = Header::of(pool, id).get().await?;
        let snap = held.snaps.iter().find(|snap| snap.name == snapshot);
        let snap = snap.ok_or_else(|| Error::NoSnap { image: name.to_owned(), snap: snapshot.to_owned() })?;
        Image::open_id(pool, id, name, Some(snap.id)).await
    }

    /// Opens an image for a use.
    pub async fn open_for(pool: &Pool, name: &str, usage: Use) -> Result<Image, Error> {
        let image = Image::open(pool, name).await?;
        if usage != Use::Read {
            image.acquire(usage).await?;
        }
        Ok(image)
    }

    pub(crate) async fn open_id(pool: &Pool, id: u64, name: &str, at: Option<SnapId>) -> Result<Image, Error> {
        let header = Header::of(pool, id);
        let view = look(pool, &header, name, at, None).await?;
        let data = match view.held.image.data_pool {
            None => pool.clone(),
            Some(id) => {
                let found = pool.cluster().pool_by_id(id).ok_or_else(|| Error::Damaged {
                    what: format!("image {name}"),
                    why: format!("its data is in pool number {}, which there is not", id.0),
                })?;
                found.namespace(&String::from_utf8_lossy(pool.namespace_name()))
            }
        };
        let limiter = Limiter::default();
        let (resized, _) = tokio::sync::watch::channel(view.size);
        let image = Image(Arc::new(Inner {
            pool: pool.clone(),
            data,
            id,
            header,
            prefix: data_prefix(id),
            view: RwLock::new(Arc::new(view)),
            gate: Arc::default(),
            rights: Mutex::default(),
            listener: Mutex::default(),
            limiter,
            meter: Arc::default(),
            cache: OnceLock::new(),
            ahead: Ahead::default(),
            marks: Marks::default(),
            cutting: AtomicUsize::default(),
            resized,
        }));
        image.learn_limits().await?;
        Ok(image)
    }

    pub(crate) async fn learn_limits(&self) -> Result<(), Error> {
        let notes = self.0.header.notes().await?;
        self.0.limiter.set(notes.iter().map(|note| (note.key.as_str(), note.value.as_str())));
        Ok(())
    }

    /// What the header says now, for all that follows. Nobody writes meanwhile.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let _alone = self.0.gate.write().await;
        self.settle().await?;
        self.refresh_alone().await
    }

    /// Answers writes from now on before they are durable, as long as no more bytes than this wait to be. To be called
    /// once, before the first write. They are durable after a flush, and when the handle is closed.
    pub fn write_back(&self, limit: u64) {
        if limit > 0 {
            let _ = self.0.cache.set(Cache::new(limit));
        }
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.cache.get()
    }

    /// Bytes that were answered and are not durable yet.
    pub fn dirty(&self) -> u64 {
        self.cache().map_or(0, Cache::dirty)
    }

    /// Nothing waits to be durable any more.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        match self.cache() {
            Some(cache) => cache.flush(self).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn refresh_alone(&self) -> Result<(), Error> {
        let _changing = self.changes(0, u64::MAX);
        let before = self.view();
        let view = look(&self.0.pool, &self.0.header, &self.name(), before.at, Some(&before)).await?;
        let size = view.size;
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        self.0.marks.reset();
        self.0.resized.send_if_modified(|known| std::mem::replace(known, size) != size);
        self.learn_limits().await
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn object(&self, index: u64) -> Object {
        self.0.data.object(format!("{}{index:016x}", self.0.prefix))
    }

    /// Its name when it was made; the directory may know it by another since.
    pub fn name(&self) -> String {
        self.view().held.image.name.clone()
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The pool it is in.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.view().size
    }

    /// Bytes of each of its objects.
    pub fn object_size(&self) -> u64 {
        self.view().layout.object()
    }

    /// All that its header says.
    pub fn header(&self) -> Held {
        self.view().held.clone()
    }

    /// Changes of its size, as this handle learns of them.
    pub fn sizes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.resized.subscribe()
    }

    /// What this handle did so far.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.0.meter
    }

    /// A handle that does not keep it open.
    pub fn downgrade(&self) -> WeakImage {
        WeakImage(Arc::downgrade(&self.0))
    }

    /// May this handle write.
    pub fn writable(&self) -> Result<(), Error> {
        match &*self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) {
            Rights::Writer(_) => Ok(()),
            Rights::Reader => Err(Error::ReadOnly { image: self.name() }),
            Rights::Lost(why) => Err(Error::Lost { image: self.name(), why: why.clone() }),
        }
    }

    /// Was the right to write lost.
    pub fn is_lost(&self) -> bool {
        matches!(*self.0.rights.lock().unwrap_or_else(PoisonError::into_inner), Rights::Lost(_))
    }

    pub(crate) fn hold(&self) -> Option<Hold> {
        match &*self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) {
            Rights::Writer(hold) => Some(hold.clone()),
            _ => None,
        }
    }

    pub(crate) fn within(&self, view: &View, offset: u64, len: u64) -> Result<(), Error> {
        let end = offset.saturating_add(len);
        if end > view.size || offset.checked_add(len).is_none() {
            return Err(Error::Bounds { image: self.name(), offset, end, size: view.size });
        }
        Ok(())
    }

    /// A failure that means that the right to write is gone is remembered.
    pub(crate) fn noted(&self, error: Error) -> Error {
        match error {
            Error::Cluster(inner) if is_fenced(&inner) => {
                let why = "its session was fenced".to_owned();
                self.lose(&why);
                Error::Lost { image: self.name(), why }
            }
            other => other,
        }
    }

    /// Bytes.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        self.0.limiter.read(&self.0.header, len).await;
        let timed = self.0.meter.read(len);
        let done = self.read_ahead(offset, len).await.map_err(|error| self.noted(error));
        timed.end(done.is_ok());
        done
    }

    /// Reads, and has fetched what will be read next.
    async fn read_ahead(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        let view = self.view();
        // Where another may write, what is fetched now may be old when it is asked for.
        if view.at.is_none() && self.hold().is_none() {
            return self.read_unlimited(offset, len).await;
        }
        self.within(&view, offset, len)?;
        if let Some(fetch) = self.0.ahead.note(offset, len, view.size) {
            let image = self.clone();
            tokio::spawn(async move {
                let data = image.read_unlimited(fetch.offset, fetch.len).await;
                image.0.ahead.came(fetch, data.ok());
            });
        }
        match self.0.ahead.get(offset, len).await {
            Some(data) => Ok(data),
            None => self.read_unlimited(offset, len).await,
        }
    }

    /// A range changes: what was read ahead of it goes, now and again when it has changed.
    pub(crate) fn changes(&self, offset: u64, len: u64) -> Changing<'_> {
        self.0.ahead.forget(offset, len);
        Changing { ahead: &self.0.ahead, offset, len }
    }

    pub(crate) fn read_boxed(&self, offset: u64, len: u64) -> Boxed<'_, Bytes> {
        Box::pin(self.read_unlimited(offset, len))
    }

    pub(crate) fn extents_boxed(&self, offset: u64, len: u64) -> Boxed<'_, Vec<(u64, bool)>> {
        Box::pin(self.extents(offset, len, 1024))
    }

    pub(crate) async fn read_unlimited(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        let view = self.view();
        self.within(&view, offset, len)?;
        let whole = usize::try_from(len).map_err(|_| Error::Bounds {
            image: self.name(),
            offset,
            end: offset.saturating_add(len),
            size: view.size,
        })?;
        let mut cut = view.layout.pieces(offset, len);
        let (Some(first), second) = (cut.next(), cut.next()) else { return Ok(Bytes::new()) };
        let Some(second) = second else {
            return Ok(padded(self.read_piece(&view, first).await?, whole));
        };
        let all = [first, second].into_iter().chain(cut);
        let reads = all.map(|piece| {
            let view = &view;
            async move { Ok::<_, Error>((piece.from, self.read_piece(view, piece).await?)) }
        });
        let mut out = BytesMut::zeroed(whole);
        for (from, bytes) in try_join_all(reads).await? {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            if let Some(place) = out.get_mut(from..from.saturating_add(bytes.len())) {
                place.copy_from_slice(&bytes);
            }
        }
        Ok(out.freeze())
    }

    async fn read_piece(&self, view: &View, piece: Piece) -> Result<Bytes, Error> {
        let Piece { index, at, len, .. } = piece;
        let over = match self.cache() {
            Some(cache) if view.at.is_none() => cache.get(index, at, len),
            _ => Vec::new(),
        };
        if let [(_, whole)] = &over[..]
            && whole.len() as u64 == len
        {
            return Ok(whole.clone());
        }
        let below = self.read_object(view, index, at, len).await?;
        if over.is_empty() {
            return Ok(below);
        }
        let mut bytes = BytesMut::from(padded(below, usize::try_from(len).unwrap_or(0)));
        for (from, data) in over {
            let from = usize::try_from(from - at).unwrap_or(usize::MAX);
            if let Some(place) = bytes.get_mut(from..from.saturating_add(data.len())) {
                place.copy_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }

    /// Writes. When this is done, it is durable, unless writes are held back ([`Image::write_back`]).
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), Error> {
        let len = data.len() as u64;
        self.0.limiter.write(&self.0.header, len).await;
        let timed = self.0.meter.write(len);
        let done = self.write_unlimited(offset, data).await.map_err(|error| self.noted(error));
        timed.end(done.is_ok());
        done
    }

    pub(crate) async fn write_unlimited(&self, offset: u64, data: Bytes) -> Result<(), Error> {
        let _in = self.0.gate.read().await;
        self.writable()?;
        let view = self.view();
        let len = data.len() as u64;
        self.within(&view, offset, len)?;
        let _changing = self.changes(offset, len);
        if let Some(cache) = self.cache() {
            for piece in view.layout.pieces(offset, len) {
                let (from, len) = (piece.from as usize, piece.len as usize);
                cache.put(self, piece.index, piece.at, &data.slice(from..from + len)).await?;
            }
            return Ok(());
        }
        let mut cut = view.layout.pieces(offset, len);
        let (Some(first), second) = (cut.next(), cut.next()) else { return Ok(()) };
        let Some(second) = second else {
            return self.write_object(&view, first.index, first.at, data).await;
        };
        let mut objects: BTreeMap<u64, Vec<(u64, Bytes)>> = BTreeMap::new();
        for piece in [first, second].into_iter().chain(cut) {
            // Lengths of slices of `data`: they fit.
            let (from, len) = (piece.from as usize, piece.len as usize);
            objects.entry(piece.index).or_default().push((piece.at, data.slice(from..from + len)));
        }
        let view = &view;
        let writes = objects.into_iter().map(|(index, mut parts)| async move {
            match (parts.pop(), parts.is_empty()) {
                (Some((at, data)), true) => self.write_object(view, index, at, data).await,
                (last, _) => {
                    parts.extend(last);
                    self.write_parts(view, index, parts).await
                }
            }
        });
        // All are waited for, also if one fails: nothing of it lands when this is over.
        join_all(writes).await.into_iter().collect()
    }

    /// Makes a range read as zeros, and frees what it can.
    pub async fn zero(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.limiter.write(&self.0.header, 0).await;
        let timed = self.0.meter.zero(len);
        let done = self.zero_unlimited(offset, len).await.map_err(|error| self.noted(error));
        timed.end(done.is_ok());
        done
    }

    async fn zero_unlimited(&self, offset: u64, len: u64) -> Result<(), Error> {
        let gate = Arc::new(Arc::clone(&self.0.gate).read_owned().await);
        self.writable()?;
        let view = self.view();
        self.within(&view, offset, len)?;
        let _changing = self.changes(offset, len);
        self.settle().await?;
        let view = &view;
        let layout = view.layout;
        let failing = &AtomicBool::new(false);
        let zeros = (layout.first(offset)..layout.objects(offset + len)).map(|index| async move {
            // What of an object lies in a range is in one piece, also with stripes.
            let (from, to) = (layout.below(index, offset), layout.below(index, offset + len));
            let due = from < to && !failing.load(Ordering::Relaxed);
            if due { self.zero_object(view, index, from, to - from).await } else { Ok(None) }
        });
        let mut zeros = stream::iter(zeros).buffer_unordered(ABREAST);
        let mut gone = Vec::new();
        let mut failed = None;
        // What was begun is waited for: nothing of it lands when this is over.
        while let Some(done) = zeros.next().await {
            match done {
                Ok(removal) => gone.extend(removal),
                Err(error) => {
                    failing.store(true, Ordering::Relaxed);
                    failed = failed.or(Some(error));
                }
            }
            // What discards a whole image is told by and by.
            if gone.len() >= 1 << 14 {
                self.gone(std::mem::take(&mut gone), Arc::clone(&gate)).await?;
            }
        }
        self.gone(gone, gate).await?;
        failed.map_or(Ok(()), Err)
    }

    /// All writes that were answered survive from now on. Fails if the right to write is gone, so that nobody takes the
    /// silence for success.
    pub async fn flush(&self) -> Result<(), Error> {
        let timed = self.0.meter.flush();
        let done = self.flush_checked().await;
        timed.end(done.is_ok());
        done
    }

    async fn flush_checked(&self) -> Result<(), Error> {
        self.settle().await?;
        match &*self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) {
            Rights::Lost(why) => Err(Error::Lost { image: self.name(), why: why.clone() }),
            _ => Ok(()),
        }
    }

    /// How much of each of its [`LIMITS`] was dealt out so far, to all who use it.
    pub async fn dealt(&self) -> Result<Vec<u64>, Error> {
        Ok(self.0.header.spend(&[0; LIMITS.len()]).await?.dealt)
    }

    /// What is noted about it.
    pub async fn notes(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.0.header.notes().await?.into_iter().map(|note| (note.key, note.value)).collect())
    }

    /// Notes something about it; nothing takes the note away. Limits are notes, and count for all who use the image once
    /// this is done.
    pub async fn note(&self, key: &str, value: &str) -> Result<(), Error> {
        if crate::limit::is_limit(key) {
            crate::limit::check(key, value)?;
        }
        self.0.header.note_set(key, value).await?;
        self.announce().await.map(drop)
    }
}
