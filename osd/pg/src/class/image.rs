//! Class `image`: the header of a block image: how large it is, which snapshots it has, what it was cloned from.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `create` | [`Image`] | nothing |
//! | `get` (reads) | nothing | [`Held`] |
//! | `resize` | [`Resize`] | nothing |
//! | `trimmed` | [`Trimmed`] | nothing |
//! | `snap_add` | [`NewSnap`] | nothing |
//! | `snap_rename` | [`NewSnap`] | nothing |
//! | `snap_remove` | `u64`: its number | nothing |
//! | `revert` | `u64`: a snapshot's number | nothing |
//! | `orphan` | nothing | nothing |
//! | `flags` | [`Flags`] | nothing |
//! | `map_set` | [`MapSet`] | nothing |
//! | `child_add`, `child_remove` | [`Child`] | nothing |
//! | `children` (reads) | [`Page`] | `(Vec<(mark, Child)>, bool)` |
//! | `note_set` | [`Note`]; an empty value removes | nothing |
//! | `spend` | [`Spend`] | [`Spent`] |
//! | `notes` (reads) | [`Page`] | `(Vec<(mark, Note)>, bool)` |
//! | `remove` | nothing | nothing |
//!
//! The head is kept as one sealed record (magic, version, checksum), and so is each snapshot. What is below the size is
//! the image; what lies between the size and `trim_end` is left over from a shrink and must go before the image grows
//! again: `resize` refuses until `trimmed`. So a crash in the middle of a shrink never brings old bytes back.
//!
//! A snapshot with children is not removed, nor is an image with snapshots.
//!
//! Notes named as in [`LIMITS`] say what all users of the image together may do in a second. `spend` deals it out: who is
//! to wait is told for how long. The account is kept by the primary's wall clock.
//!
//! The head has two forms. The first has no stripes, no pool for its data and no mark of its object map; it is what is
//! written as long as it can say all there is, so that an image that needs none of these is what it always was. The second
//! is told by the highest bit of the order's byte.

use bytes::Bytes;
use nacre_proto::ids::{PoolId, SnapId};

use super::{Class, Method, Page, Scope, code, encode, input, number_of, numbered, refuse};
use crate::codec_struct;
use crate::exec::Stop;
use crate::format::{Codec, FormatError, Kind, Pen, Reader, open, seal};

/// Where a clone's bytes come from until it has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// The pool of the parent.
    pub pool: PoolId,
    /// Its namespace.
    pub namespace: Bytes,
    /// The parent's number.
    pub image: u64,
    /// Which snapshot of it.
    pub snap: SnapId,
    /// Only bytes below this are the parent's.
    pub overlap: u64,
}
codec_struct!(Parent { pool, namespace, image, snap, overlap });

/// The head of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its number; its objects are named by it.
    pub id: u64,
    /// What people call it; the directory decides, this is for finding it again.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its objects have 2 to the power of this many bytes.
    pub order: u8,
    /// What a client must know to use it; one that does not know a bit must not.
    pub features: u64,
    /// What is to be told of it, without harm to those that do not know.
    pub flags: u64,
    /// When it was made, by the primary's clock.
    pub created_ms: u64,
    /// Bytes from the size up to here may still be stored.
    pub trim_end: u64,
    /// What it was cloned from.
    pub parent: Option<Parent>,
    /// The newest snapshot it ever had.
    pub snap_seq: SnapId,
    /// Rises with each change of the header.
    pub change: u64,
    /// Bytes that lie next to each other in one object before those of the next one begin; 0: all of an object's.
    pub stripe_unit: u64,
    /// Objects that bytes are dealt out to in turn; 0 and 1: no stripes.
    pub stripe_count: u64,
    /// The pool of its data objects, if that is not the header's.
    pub data_pool: Option<PoolId>,
    /// The object map says the truth of snapshots newer than this.
    pub map_since: SnapId,
}

/// Marks the second form in the byte of the order.
const SECOND: u8 = 0x80;

impl Image {
    fn needs_second(&self) -> bool {
        (self.stripe_unit, self.stripe_count, self.data_pool, self.map_since) != (0, 0, None, SnapId(0))
    }

    /// Is what it says of its objects possible.
    #[must_use]
    pub fn is_well_laid_out(&self) -> bool {
        let (unit, count) = (self.stripe_unit, self.stripe_count);
        let striped = unit >= 512 && (2..=STRIPES_MAX).contains(&count);
        ORDERS.contains(&self.order)
            && ((unit, count) == (0, 0) || (striped && (1u64 << self.order).is_multiple_of(unit)))
    }
}

impl Codec for Image {
    fn put(&self, out: &mut Pen) {
        let second = self.needs_second();
        self.id.put(out);
        self.name.put(out);
        self.size.put(out);
        (self.order | if second { SECOND } else { 0 }).put(out);
        self.features.put(out);
        self.flags.put(out);
        self.created_ms.put(out);
        self.trim_end.put(out);
        self.parent.put(out);
        self.snap_seq.put(out);
        self.change.put(out);
        if second {
            self.stripe_unit.put(out);
            self.stripe_count.put(out);
            self.data_pool.put(out);
            self.map_since.put(out);
        }
    }

    fn get(r: &mut Reader<'_>) -> Result<Image, FormatError> {
        let mut image = Image {
            id: Codec::get(r)?,
            name: Codec::get(r)?,
            size: Codec::get(r)?,
            order: Codec::get(r)?,
            features: Codec::get(r)?,
            flags: Codec::get(r)?,
            created_ms: Codec::get(r)?,
            trim_end: Codec::get(r)?,
            parent: Codec::get(r)?,
            snap_seq: Codec::get(r)?,
            change: Codec::get(r)?,
            ..Image::default()
        };
        if image.order & SECOND != 0 {
            image.order &= !SECOND;
            image.stripe_unit = Codec::get(r)?;
            image.stripe_count = Codec::get(r)?;
            image.data_pool = Codec::get(r)?;
            image.map_since = Codec::get(r)?;
        }
        Ok(image)
    }
}

/// A feature: which objects exist, and when each last changed, is written down in an object map.
pub const FEATURE_MAP: u64 = 1;
/// A flag: the object map may miss something, and is not to be asked.
pub const FLAG_MAP_BAD: u64 = 1;

/// A snapshot of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snap {
    /// Its number in the pool.
    pub id: SnapId,
    /// Its name, unique in the image.
    pub name: String,
    /// How large the image was.
    pub size: u64,
    /// When it was taken, by the primary's clock.
    pub taken_ms: u64,
    /// What the image was cloned from then.
    pub parent: Option<Parent>,
    /// The group snapshot it is part of, if any.
    pub group: Bytes,
}
codec_struct!(Snap { id, name, size, taken_ms, parent, group });

/// All of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The head.
    pub image: Image,
    /// Snapshots, oldest first.
    pub snaps: Vec<Snap>,
}
codec_struct!(Held { image, snaps });

/// Input of `resize`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// What it is to be.
    pub size: u64,
    /// What the caller thinks it is; refused with `CONDITION` if not.
    pub from: u64,
}
codec_struct!(Resize { size, from });

/// Input of `trimmed`: nothing is stored any more from this size on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The size the image had, and must still have.
    pub size: u64,
}
codec_struct!(Trimmed { size });

/// Input of `snap_add` and `snap_rename`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnap {
    /// Its number: newer than all others, or of the one to be renamed.
    pub id: SnapId,
    /// Its name.
    pub name: String,
    /// The group snapshot it is part of, if any.
    pub group: Bytes,
}
codec_struct!(NewSnap { id, name, group });

/// Input of `flags`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// To be set.
    pub set: u64,
    /// To be cleared.
    pub clear: u64,
}
codec_struct!(Flags { set, clear });

/// Input of `map_set`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSet {
    /// The image has an object map.
    pub used: bool,
    /// It says the truth.
    pub good: bool,
    /// Of snapshots newer than this.
    pub since: SnapId,
}
codec_struct!(MapSet { used, good, since });

/// A clone of a snapshot of this image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Child {
    /// Of which snapshot.
    pub snap: SnapId,
    /// The clone's pool.
    pub pool: PoolId,
    /// Its namespace.
    pub namespace: Bytes,
    /// Its number.
    pub image: u64,
}
codec_struct!(Child { snap, pool, namespace, image });

/// Something noted about the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Its name.
    pub key: String,
    /// What.
    pub value: String,
}
codec_struct!(Note { key, value });

/// The notes that are limits, each a whole number for each second: operations and bytes, of all, of reads, of writes.
pub const LIMITS: [&str; 6] =
    ["limit.iops", "limit.iops.read", "limit.iops.write", "limit.bytes", "limit.bytes.read", "limit.bytes.write"];

/// Input of `spend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// How much of each of [`LIMITS`].
    pub amounts: Vec<u64>,
}
codec_struct!(Spend { amounts });

/// Answer of `spend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// From when on it may be used: so many microseconds from now.
    pub wait_us: u64,
    /// What there is for each second of each of [`LIMITS`]; 0: no limit.
    pub rates: Vec<u64>,
    /// How much of each was dealt out since there is an account; what has no limit is not counted.
    pub dealt: Vec<u64>,
}
codec_struct!(Spent { wait_us, rates, dealt });

/// What of the limits was dealt out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    /// Of each of [`LIMITS`]: when all is paid that was dealt out, in microseconds of the wall clock.
    paid_us: Vec<u64>,
    /// How much it was.
    dealt: Vec<u64>,
}
codec_struct!(Account { paid_us, dealt });

/// What is not spent within so long is gone.
const SECOND_US: u64 = 1_000_000;
/// A debt beyond this comes from a clock that was set back.
const DEBT_MAX_US: u64 = 600 * SECOND_US;

/// Objects are between 4 KiB and 32 MiB.
pub const ORDERS: std::ops::RangeInclusive<u8> = 12..=25;
/// Objects that bytes are dealt out to in turn.
pub const STRIPES_MAX: u64 = 1024;
/// Snapshots of one image.
pub const SNAPS_MAX: u32 = 2000;
/// Bytes of a name.
pub const NAME_MAX: usize = 200;
/// Bytes of a note's value.
pub const NOTE_MAX: usize = 4096;

const HEAD: &[u8] = b"head";
const SNAP: &[u8] = b"s";
const CHILD: &[u8] = b"c";
const NOTE: &[u8] = b"n";
const LIMIT_NOTES: &[u8] = b"nlimit.";
const ACCOUNT: &[u8] = b"account";

/// The class.
pub struct ImageClass;

impl Class for ImageClass {
    fn name(&self) -> &'static str {
        "image"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "create", writes: true, run: create },
            Method { name: "get", writes: false, run: get },
            Method { name: "resize", writes: true, run: resize },
            Method { name: "trimmed", writes: true, run: trimmed },
            Method { name: "snap_add", writes: true, run: snap_add },
            Method { name: "snap_rename", writes: true, run: snap_rename },
            Method { name: "snap_remove", writes: true, run: snap_remove },
            Method { name: "revert", writes: true, run: revert },
            Method { name: "orphan", writes: true, run: orphan },
            Method { name: "flags", writes: true, run: flags },
            Method { name: "map_set", writes: true, run: map_set },
            Method { name: "child_add", writes: true, run: child_add },
            Method { name: "child_remove", writes: true, run: child_remove },
            Method { name: "children", writes: false, run: children },
            Method { name: "note_set", writes: true, run: note_set },
            Method { name: "spend", writes: true, run: spend },
            Method { name: "notes", writes: false, run: notes },
            Method { name: "remove", writes: true, run: remove },
        ]
    }
}

fn load(s: &mut Scope<'_, '_>) -> Result<Image, Stop> {
    s.must_exist()?;
    let raw: Bytes = s.state(HEAD)?.ok_or_else(|| refuse(code::ABSENT))?;
    open(Kind::Image, &raw).map_err(|_| refuse(code::STORED))
}

fn save(s: &mut Scope<'_, '_>, mut image: Image) -> Result<Bytes, Stop> {
    image.change += 1;
    s.set_state(HEAD, &seal(Kind::Image, &image))?;
    Ok(Bytes::new())
}

fn snaps(s: &mut Scope<'_, '_>) -> Result<Vec<Snap>, Stop> {
    let (list, _) = s.omap_range(None, SNAP, SNAPS_MAX + 1)?;
    list.iter().map(|(_, raw)| open(Kind::ImageSnap, raw).map_err(|_| refuse(code::STORED))).collect()
}

fn put_snap(s: &mut Scope<'_, '_>, snap: &Snap) -> Result<(), Stop> {
    s.omap_set(vec![(numbered(SNAP, snap.id.0), seal(Kind::ImageSnap, snap))])
}

fn drop_key(s: &mut Scope<'_, '_>, key: &[u8]) -> Result<(), Stop> {
    let mut end = key.to_vec();
    end.push(0);
    s.omap_remove_range(Bytes::copy_from_slice(key), Bytes::from(end))
}

fn named(name: &str) -> Result<(), Stop> {
    if name.is_empty() || name.len() > NAME_MAX { Err(refuse(code::MALFORMED)) } else { Ok(()) }
}

fn create(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let mut image: Image = input(raw)?;
    named(&image.name)?;
    if !image.is_well_laid_out() || image.snap_seq != SnapId(0) || image.trim_end != 0 {
        return Err(refuse(code::MALFORMED));
    }
    if s.state::<Bytes>(HEAD)?.is_some() {
        return Err(refuse(code::EXISTS));
    }
    image.created_ms = s.wall_ms();
    image.change = 0;
    save(s, image)
}

fn get(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    let image = load(s)?;
    let snaps = snaps(s)?;
    Ok(encode(&Held { image, snaps }))
}

fn become_size(image: &mut Image, size: u64) {
    if size < image.size {
        image.trim_end = image.trim_end.max(image.size);
    }
    image.size = size;
    if let Some(parent) = &mut image.parent {
        parent.overlap = parent.overlap.min(size);
    }
}

fn resize(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: Resize = input(raw)?;
    let mut image = load(s)?;
    if image.size != want.from || (want.size > image.size && image.trim_end > image.size) {
        return Err(refuse(code::CONDITION));
    }
    become_size(&mut image, want.size);
    save(s, image)
}

fn trimmed(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let done: Trimmed = input(raw)?;
    let mut image = load(s)?;
    if image.size != done.size {
        return Err(refuse(code::CONDITION));
    }
    image.trim_end = 0;
    save(s, image)
}

fn snap_add(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: NewSnap = input(raw)?;
    named(&want.name)?;
    let mut image = load(s)?;
    let all = snaps(s)?;
    if all.iter().any(|snap| snap.name == want.name) {
        return Err(refuse(code::EXISTS));
    }
    if want.id <= image.snap_seq || want.id == SnapId::HEAD {
        return Err(refuse(code::CONDITION));
    }
    if all.len() >= SNAPS_MAX as usize {
        return Err(refuse(code::FULL));
    }
    let parent = image.parent.clone();
    let taken_ms = s.wall_ms();
    let snap = Snap { id: want.id, name: want.name, size: image.size, taken_ms, parent, group: want.group };
    put_snap(s, &snap)?;
    image.snap_seq = want.id;
    save(s, image)
}

fn snap_of(s: &mut Scope<'_, '_>, id: SnapId) -> Result<Snap, Stop> {
    let raw = s.omap_get(&numbered(SNAP, id.0))?.ok_or_else(|| refuse(code::ABSENT))?;
    open(Kind::ImageSnap, &raw).map_err(|_| refuse(code::STORED))
}

fn snap_rename(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: NewSnap = input(raw)?;
    named(&want.name)?;
    let image = load(s)?;
    let mut snap = snap_of(s, want.id)?;
    if snaps(s)?.iter().any(|other| other.name == want.name && other.id != want.id) {
        return Err(refuse(code::EXISTS));
    }
    snap.name = want.name;
    put_snap(s, &snap)?;
    save(s, image)
}

fn snap_remove(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let id = SnapId(input::<u64>(raw)?);
    let image = load(s)?;
    snap_of(s, id)?;
    if !s.omap_range(None, &numbered(CHILD, id.0), 1)?.0.is_empty() {
        return Err(refuse(code::BUSY));
    }
    drop_key(s, &numbered(SNAP, id.0))?;
    save(s, image)
}

/// The head is as large, and has the parent, as when the snapshot was taken.
fn revert(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let id = SnapId(input::<u64>(raw)?);
    let mut image = load(s)?;
    let snap = snap_of(s, id)?;
    image.trim_end = image.trim_end.max(image.size);
    image.size = snap.size;
    image.parent = snap.parent;
    if image.trim_end <= image.size {
        image.trim_end = 0;
    }
    save(s, image)
}

fn orphan(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    let mut image = load(s)?;
    image.parent = None;
    save(s, image)
}

fn flags(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let change: Flags = input(raw)?;
    let mut image = load(s)?;
    image.flags = (image.flags | change.set) & !change.clear;
    save(s, image)
}

fn map_set(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let map: MapSet = input(raw)?;
    let mut image = load(s)?;
    let with = |word: u64, bit: u64, set: bool| if set { word | bit } else { word & !bit };
    image.features = with(image.features, FEATURE_MAP, map.used);
    image.flags = with(image.flags, FLAG_MAP_BAD, !map.good);
    image.map_since = map.since;
    save(s, image)
}

fn child_key(child: &Child) -> Bytes {
    let mut key = numbered(CHILD, child.snap.0).to_vec();
    key.extend_from_slice(&child.pool.0.to_be_bytes());
    key.extend_from_slice(&child.image.to_be_bytes());
    key.extend_from_slice(&child.namespace);
    Bytes::from(key)
}

fn child_add(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let child: Child = input(raw)?;
    load(s)?;
    snap_of(s, child.snap)?;
    s.omap_set(vec![(child_key(&child), encode(&child))])?;
    Ok(Bytes::new())
}

fn child_remove(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let child: Child = input(raw)?;
    load(s)?;
    drop_key(s, &child_key(&child))?;
    Ok(Bytes::new())
}

fn page_of<T: Codec>(s: &mut Scope<'_, '_>, prefix: &[u8], raw: &[u8]) -> Result<Bytes, Stop> {
    let page: Page = input(raw)?;
    load(s)?;
    let after = Some(&page.after).filter(|after| !after.is_empty());
    let (list, more) = s.omap_range(after, prefix, page.max.min(1000))?;
    let read = |(mark, raw): (Bytes, Bytes)| {
        let item: Option<T> = super::decode(&raw);
        item.map(|item| (mark, item)).ok_or_else(|| refuse(code::STORED))
    };
    let list: Vec<(Bytes, T)> = list.into_iter().map(read).collect::<Result<_, Stop>>()?;
    Ok(encode(&(list, more)))
}

fn children(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    page_of::<Child>(s, CHILD, raw)
}

fn note_set(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let note: Note = input(raw)?;
    named(&note.key)?;
    if note.value.len() > NOTE_MAX {
        return Err(refuse(code::LIMIT));
    }
    let image = load(s)?;
    let mut key = NOTE.to_vec();
    key.extend_from_slice(note.key.as_bytes());
    if note.value.is_empty() {
        drop_key(s, &key)?;
    } else {
        s.omap_set(vec![(Bytes::from(key), encode(&note))])?;
    }
    save(s, image)
}

fn rates(s: &mut Scope<'_, '_>) -> Result<[u64; LIMITS.len()], Stop> {
    let mut rates = [0; LIMITS.len()];
    for (_, raw) in s.omap_range(None, LIMIT_NOTES, 100)?.0 {
        let note: Note = super::decode(&raw).ok_or_else(|| refuse(code::STORED))?;
        if let Some(rate) = LIMITS.iter().position(|limit| *limit == note.key).and_then(|at| rates.get_mut(at)) {
            // Whoever noted what is no number set no limit.
            *rate = note.value.parse().unwrap_or(0);
        }
    }
    Ok(rates)
}

fn spend(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: Spend = input(raw)?;
    if want.amounts.len() != LIMITS.len() {
        return Err(refuse(code::MALFORMED));
    }
    load(s)?;
    let rates = rates(s)?;
    let now = s.wall_ms().saturating_mul(1000);
    let mut account: Account = s.state(ACCOUNT)?.unwrap_or_default();
    account.paid_us.resize(LIMITS.len(), 0);
    account.dealt.resize(LIMITS.len(), 0);
    let mut wait_us = 0;
    let parts = account.paid_us.iter_mut().zip(&mut account.dealt).zip(want.amounts).zip(rates);
    for (((paid_us, dealt), amount), rate) in parts {
        if rate == 0 || amount == 0 {
            continue;
        }
        let from = if *paid_us > now.saturating_add(DEBT_MAX_US) { now } else { *paid_us };
        let cost = u128::from(amount) * u128::from(SECOND_US) / u128::from(rate);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        *paid_us = from.max(now.saturating_sub(SECOND_US)).saturating_add(cost);
        *dealt = dealt.saturating_add(amount);
        wait_us = wait_us.max(paid_us.saturating_sub(now));
    }
    s.set_state(ACCOUNT, &account)?;
    Ok(encode(&Spent { wait_us, rates: rates.to_vec(), dealt: account.dealt }))
}

fn notes(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    page_of::<Note>(s, NOTE, raw)
}

fn remove(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    load(s)?;
    let (first, _) = s.omap_range(None, SNAP, 1)?;
    if first.iter().any(|(key, _)| number_of(SNAP, key).is_some()) {
        return Err(refuse(code::BUSY));
    }
    s.remove_object()?;
    Ok(Bytes::new())
}
