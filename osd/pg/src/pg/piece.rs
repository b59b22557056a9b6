//! A bounded piece of an object on its way to another osd: what is read for it, what it says, how it is put in place.
//!
//! A clone that is recovered whole would share nothing with its kin, and a member filled anew would need far more space
//! than its source. So what an object has in common with the clone before it is not sent but named, and whoever receives
//! the piece takes it from there. Which ranges these are is read from the head's record. That is right if
//! - the record is the one the authoritative log speaks of: the primary's own, or at a source that is asked, one of the
//!   version the primary names;
//! - the receiver has that clone: the older go first (`recover.rs`, `backfill.rs`), and a primary looks before it takes.
//!   Clones do not change and are removed only by trimming, which begins when all is clean, or by a decision about what is
//!   unfound, which is not counted as had.
//!
//! What is fetched since a copy was found bad comes whole: it may be the common blocks that are bad.

use std::ops::Bound;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, SnapId, Version};
use nacre_proto::txn::{TxnOp, WriteHint};

use super::operate::info_of;
use super::{Fault, OnRead, PlacementGroup, Role};
use crate::io::{ReadFault, ReadItem, ReadValue, Step};
use crate::log::Missing;
use crate::msg::{Body, Chunk, CopyCursor, Shared, cut_pairs};
use crate::object::{ObjectInfo, head_of, temp_of};

/// Shared ranges of one piece: it is bounded, too.
const RANGES: usize = 128;

/// One piece, while it is read.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    oid: ObjectId,
    to: OsdId,
    version: Version,
    at: CopyCursor,
    /// Asked for by a primary; else this osd is the primary and sends it unasked.
    asked: bool,
    phase: Phase,
}

/// What is being read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The head's record, for what may be shared; of this version, if it matters.
    Head(Option<Version>),
    /// Is the clone before it here.
    Before(Layout),
    /// The piece.
    Content(Layout),
}

/// Of what a piece is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Ranges to be read.
    own: Vec<(u64, u64)>,
    shared: Option<Shared>,
    /// The size by which it was laid out; none: nothing is shared, the object says itself where it ends.
    size: Option<u64>,
}

impl Layout {
    /// From an offset on, so many bytes at most.
    fn whole(offset: u64, bytes: u64) -> Layout {
        Layout { own: vec![(offset, bytes)], shared: None, size: None }
    }

    /// The same, leaving out what the object has in common with another.
    fn sharing(offset: u64, bytes: u64, size: u64, kin: Shared) -> Layout {
        let (mut own, mut ranges) = (Vec::new(), Vec::new());
        let (mut at, mut room) = (offset, bytes.max(1));
        let mut take = |from: u64, to: u64, at: &mut u64| {
            let n = room.min(to.saturating_sub(from));
            if n > 0 {
                own.push((from, n));
            }
            room -= n;
            *at = from + n;
        };
        for (from, len) in kin.ranges {
            let to = from.saturating_add(len).min(size);
            let from = from.max(at);
            if to <= from {
                continue;
            }
            take(at, from, &mut at);
            if at < from || ranges.len() == RANGES {
                break;
            }
            ranges.push((from, to - from));
            at = to;
        }
        if ranges.len() < RANGES {
            take(at, size, &mut at);
        }
        let shared = (!ranges.is_empty()).then_some(Shared { with: kin.with, ranges });
        Layout { own, shared, size: Some(size) }
    }

    /// What to read.
    fn items(&self, at: &CopyCursor, keys: u32) -> Vec<ReadItem> {
        let mut items = vec![ReadItem::Meta, ReadItem::Xattrs, ReadItem::OmapHeader];
        items.push(ReadItem::OmapRange { after: at.omap_after.clone(), max: keys });
        items.extend(self.own.iter().map(|&(offset, len)| ReadItem::Extent { offset, len }));
        items
    }

    /// The piece, with the version of the object it is of.
    fn fill(&self, at: &CopyCursor, values: &[ReadValue], bytes: u64) -> Option<(Version, Chunk)> {
        let [
            ReadValue::Meta(Some(_)),
            ReadValue::Pairs(xattrs, _),
            ReadValue::Data(header),
            ReadValue::Pairs(omap, more),
            data @ ..,
        ] = values
        else {
            return None;
        };
        let info = info_of(xattrs).ok().flatten()?;
        let data = match data {
            [ReadValue::Data(data)] => data.clone(),
            many => {
                let mut all = Vec::new();
                for part in many {
                    let ReadValue::Data(part) = part else { return None };
                    all.extend_from_slice(part);
                }
                Bytes::from(all)
            }
        };
        let common: u64 = self.shared.iter().flat_map(|s| &s.ranges).map(|(_, len)| len).sum();
        let offset = at.offset + data.len() as u64 + common;
        let data_done = offset >= info.size || (data.is_empty() && common == 0);
        let (omap, more) = if data_done { cut_pairs(omap, *more, bytes) } else { (Vec::new(), true) };
        let omap_after = omap.last().map(|(k, _)| k.clone()).or_else(|| at.omap_after.clone());
        let first = *at == CopyCursor::default();
        let chunk = Chunk {
            at: at.clone(),
            next: more.then_some(CopyCursor { offset, omap_after }),
            xattrs: if first { xattrs.clone() } else { Vec::new() },
            header: if first { header.clone() } else { Bytes::new() },
            size: info.size,
            data,
            omap,
            shared: self.shared.clone(),
        };
        Some((info.version, chunk))
    }
}

/// What an object has in common with the clone before it, by its head's record; and its size.
fn common(head: &ObjectInfo, oid: &ObjectId, all: bool) -> Option<(u64, Shared)> {
    let clones = &head.snaps.clones;
    let (at, size) = if oid.snap == SnapId::HEAD {
        (clones.len(), head.size)
    } else {
        let at = clones.iter().position(|c| c.id == oid.snap)?;
        (at, clones.get(at)?.size)
    };
    let before = clones.get(at.checked_sub(1)?)?;
    let ranges = if all { vec![(0, before.size)] } else { before.overlap.clone() };
    (!ranges.is_empty()).then_some((size, Shared { with: before.id, ranges }))
}

/// The older clones of an object among those that are lacked, oldest first.
pub(crate) fn older<'a>(missing: &'a Missing, oid: &ObjectId) -> impl Iterator<Item = &'a ObjectId> {
    let first = ObjectId { snap: SnapId(0), ..oid.clone() };
    missing.range((Bound::Included(first), Bound::Excluded(oid.clone()))).map(|(o, _)| o)
}

/// The parts of a piece that are not blocks of zeros: what is gathered is new, and reads as zeros where nothing was written.
/// So holes stay holes.
fn solid(offset: u64, data: &Bytes) -> Vec<(u64, Bytes)> {
    const BLOCK: usize = 4096;
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut parts = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < data.len() {
        // Blocks of the object, not of the piece.
        let within = (offset.wrapping_add(at as u64) % BLOCK as u64) as usize;
        let end = (at + BLOCK - within).min(data.len());
        if end - at == BLOCK && data[at..end] == ZEROS {
            if begin < at {
                parts.push((offset + begin as u64, data.slice(begin..at)));
            }
            begin = end;
        }
        at = end;
    }
    if begin < data.len() {
        parts.push((offset + begin as u64, data.slice(begin..)));
    }
    parts
}

impl PlacementGroup {
    /// Reads the piece at `at` for a member.
    pub(crate) fn read_piece(&mut self, cx: &mut Step<'_>, oid: ObjectId, to: OsdId, version: Version, at: CopyCursor) {
        let kin = self.may_share(&oid, to).then_some(None);
        self.begin_piece(cx, Piece { oid, to, version, at, asked: false, phase: Phase::Head(None) }, kin);
    }

    /// Reads the piece a primary asks for.
    pub(crate) fn serve_piece(
        &mut self,
        cx: &mut Step<'_>,
        oid: ObjectId,
        to: OsdId,
        version: Version,
        at: CopyCursor,
        kin: Option<Version>,
    ) {
        self.begin_piece(cx, Piece { oid, to, version, at, asked: true, phase: Phase::Head(None) }, kin.map(Some));
    }

    fn begin_piece(&mut self, cx: &mut Step<'_>, mut p: Piece, kin: Option<Option<Version>>) {
        let Some(version) = kin else { return self.read_whole(cx, Box::new(p)) };
        p.phase = Phase::Head(version);
        let head = head_of(&p.oid);
        self.desk.read(cx, Some(head), vec![ReadItem::Xattrs], OnRead::Piece(Box::new(p)));
    }

    fn read_whole(&mut self, cx: &mut Step<'_>, p: Box<Piece>) {
        let layout = Layout::whole(p.at.offset, self.cfg.chunk_bytes);
        self.read_content(cx, p, layout);
    }

    fn read_content(&mut self, cx: &mut Step<'_>, mut p: Box<Piece>, layout: Layout) {
        let items = layout.items(&p.at, self.cfg.chunk_keys);
        p.phase = Phase::Content(layout);
        self.desk.read(cx, Some(p.oid.clone()), items, OnRead::Piece(p));
    }

    /// Primary: has a member all that a piece might want to take ranges from, and is the record here that names them.
    fn may_share(&self, oid: &ObjectId, to: OsdId) -> bool {
        let Role::Primary(p) = &self.role else { return false };
        // Pools without snapshots, which are most, are not to pay for a look at each head.
        (self.info.stats.clones > 0 || self.info.recount)
            && !p.recover.is_whole(oid)
            && !self.missing.contains_key(&head_of(oid))
            && p.peers.get(&to).and_then(|q| q.missing.as_ref()).is_none_or(|l| older(l, oid).next().is_none())
            && p.backfill.as_ref().is_none_or(|b| !b.owes_older(oid, to))
    }

    /// Primary: the version of the head whose record says what this one may take instead of fetching it.
    pub(crate) fn kin(&self, oid: &ObjectId) -> Option<Version> {
        let Role::Primary(p) = &self.role else { return None };
        if (self.info.stats.clones == 0 && !self.info.recount)
            || p.recover.is_whole(oid)
            || older(&self.missing, oid).next().is_some()
        {
            return None;
        }
        self.missing.get(&head_of(oid)).map(|item| item.need)
    }

    /// Something was read for a piece.
    pub(crate) fn piece_read(
        &mut self,
        cx: &mut Step<'_>,
        mut p: Box<Piece>,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        let bytes = self.cfg.chunk_bytes;
        match std::mem::replace(&mut p.phase, Phase::Head(None)) {
            Phase::Head(version) => {
                let head = match result.as_deref() {
                    Ok([ReadValue::Pairs(pairs, _)]) => info_of(pairs).ok().flatten(),
                    _ => None,
                };
                let head = head.filter(|h| version.is_none_or(|v| v == h.version));
                let found = head.and_then(|h| common(&h, &p.oid, self.cfg.is(Fault::ShareAll)));
                let Some((size, kin)) = found else { return self.read_whole(cx, p) };
                let before = ObjectId { snap: kin.with, ..p.oid.clone() };
                let layout = Layout::sharing(p.at.offset, bytes, size, kin);
                if layout.shared.is_none() {
                    self.read_whole(cx, p);
                } else if p.asked {
                    // Whether the asker has it is for the asker to see.
                    self.read_content(cx, p, layout);
                } else if self.missing.contains_key(&before) {
                    self.read_whole(cx, p);
                } else {
                    p.phase = Phase::Before(layout);
                    self.desk.read(cx, Some(before), vec![ReadItem::Meta], OnRead::Piece(p));
                }
            }
            Phase::Before(layout) => match result.as_deref() {
                Ok([ReadValue::Meta(Some(_))]) => self.read_content(cx, p, layout),
                _ => self.read_whole(cx, p),
            },
            Phase::Content(layout) => {
                let found = result.ok().and_then(|values| layout.fill(&p.at, &values, bytes));
                // Laid out by a record that does not fit: it says nothing about the object.
                let fits = found.as_ref().is_none_or(|(_, c)| layout.size.is_none_or(|s| s == c.size) && c.is_sound());
                let Piece { oid, to, version, at, asked, .. } = *p;
                match (fits, asked) {
                    (false, _) => {
                        let again = Piece { oid, to, version, at, asked, phase: Phase::Head(None) };
                        self.read_whole(cx, Box::new(again));
                    }
                    (true, true) => {
                        let chunk = found.filter(|(found, _)| *found == version).map(|(_, chunk)| chunk);
                        self.desk.send(cx, to, Body::Pulled { oid, need: version, chunk });
                    }
                    // Asked for twice, as after a lost connection, the second may be read when the object has long been
                    // sent, changed or removed: then it says nothing any more, neither of the object nor of our copy.
                    (true, false) if !self.is_due(&oid, to, version, &at) && !self.cfg.is(Fault::LatePieces) => {}
                    (true, false) => self.push_piece(cx, oid, to, version, found.map(|(_, chunk)| chunk)),
                }
            }
        }
    }

    /// Puts a piece into the store: gathered aside, or at once if it is all.
    pub(crate) fn place(&mut self, oid: &ObjectId, chunk: Chunk, ops: &mut Vec<TxnOp>) {
        let first = chunk.at == CopyCursor::default();
        let last = chunk.next.is_none();
        let to = if first && last { oid.clone() } else { temp_of(oid) };
        if first {
            ops.push(TxnOp::Remove { oid: to.clone() });
            ops.push(TxnOp::Touch { oid: to.clone() });
            for (name, value) in chunk.xattrs {
                ops.push(TxnOp::SetXattr { oid: to.clone(), name, value });
            }
            if !chunk.header.is_empty() {
                ops.push(TxnOp::OmapSetHeader { oid: to.clone(), header: chunk.header });
            }
            if !last {
                self.set_temp(oid, true, ops);
            }
        }
        let (mut at, mut data) = (chunk.at.offset, chunk.data);
        let write = |offset: u64, data: Bytes, ops: &mut Vec<TxnOp>| {
            let part = |(offset, data)| TxnOp::Write { oid: to.clone(), offset, data, hint: WriteHint::default() };
            ops.extend(solid(offset, &data).into_iter().map(part));
        };
        if let Some(Shared { with, ranges }) = chunk.shared {
            let from = ObjectId { snap: with, ..oid.clone() };
            for (offset, len) in ranges {
                let own = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX).min(data.len());
                write(at, data.split_to(own), ops);
                ops.push(TxnOp::CloneRange {
                    from: from.clone(),
                    to: to.clone(),
                    from_offset: offset,
                    len,
                    to_offset: offset,
                });
                at = offset + len;
            }
        }
        write(at, data, ops);
        if !chunk.omap.is_empty() {
            ops.push(TxnOp::OmapSet { oid: to.clone(), entries: chunk.omap });
        }
        if last {
            ops.push(TxnOp::Truncate { oid: to.clone(), size: chunk.size });
            if !first {
                ops.push(TxnOp::Rename { from: to, to: oid.clone() });
                self.set_temp(oid, false, ops);
            }
            self.set_missing(oid.clone(), None, ops);
        }
    }
}

#[cfg(test)]
#[path = "piece_test.rs"]
mod tests;
