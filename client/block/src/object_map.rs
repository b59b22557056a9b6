//! The object map: which objects of an image may exist, and when each last changed, so that what goes over a whole image
//! looks at those alone.
//!
//! It is an array of eight bytes for each object, in objects of its own (`block.map.ID.CHUNK`) beside the image's data and
//! written with the same snapshots to keep: a snapshot has the map of its moment. An entry says whether the object may
//! exist, and the newest snapshot there was when it last changed: what changed since a snapshot is told by one map alone.
//!
//! Invariants:
//! 1. Before an object changes, its entry says so, durably. So the map may name too many objects, whenever a crash comes,
//!    and never misses one.
//! 2. An entry changes only from what it was read as: two who change it at once do not undo each other.
//! 3. "Absent" is written only by whoever removed the object, and only if nothing that could make it exist was under way
//!    at any moment between its removal and that entry.
//! 4. Bytes that are no entry mean: may exist, may have changed.
//!
//! A copy from a parent that older snapshots see too is in the head's map alone: where a parent shows through, a snapshot's
//! map is not asked.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::class::image::{FEATURE_MAP, FLAG_MAP_BAD, Image as Head, MapSet};
use nacre_client::{Op, OpError, SnapContext, SnapId};
use tokio::sync::OwnedRwLockReadGuard;

use crate::error::{Error, is_absent, is_guard};
use crate::image::{ABREAST, Image, View};
use entry::UNKNOWN;
pub(crate) use entry::{Change, Entry};

const ENTRY: u64 = 8;
/// Entries of one object of the map: 4 MiB.
const CHUNK: u64 = 1 << 19;
/// Entries read at a time, and kept: 64 KiB.
const SEGMENT: u64 = 1 << 13;
/// Segments that are kept: 8 MiB.
const KEPT: usize = 128;
/// Entries read at a time by what goes over a whole image.
pub(crate) const PART: u64 = 1 << 17;
/// Others that change the same entries at the same moment.
const RACES: usize = 100;
/// What the first object of a map notes: how many there once were.
const MOST: &str = "most";
#[derive(Debug, Default)]
struct State {
    /// Rises when what is kept may be of an old view.
    turn: u64,
    /// Entries as they were read or written last, by segment.
    segments: BTreeMap<u64, BytesMut>,
    /// Objects that are being changed.
    busy: BTreeMap<u64, Busy>,
    /// Objects whose entries are to be written.
    wanted: BTreeSet<u64>,
}

/// The map as a handle that changes the image keeps it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    state: Mutex<State>,
    /// Held by who changes entries.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// Changes of one object.
#[derive(Debug, Default)]
struct Busy {
    /// That are under way.
    now: u64,
    /// That began since none was.
    all: u64,
}

/// An object that is being changed. If the change is not known to have ended, it counts as under way for good.
#[derive(Debug)]
pub(crate) struct Touch<'a> {
    marks: Option<&'a Marks>,
    index: u64,
}

impl Touch<'_> {
    /// The change ended: nothing of it is under way any more.
    pub(crate) fn end(self) {
        if let Some(marks) = self.marks {
            marks.state().end(self.index);
        }
    }
}

fn place(index: u64) -> (u64, usize) {
    (index / SEGMENT, ((index % SEGMENT) * ENTRY) as usize)
}

impl State {
    fn begin(&mut self, index: u64) {
        let busy = self.busy.entry(index).or_default();
        busy.now += 1;
        busy.all += 1;
    }

    fn end(&mut self, index: u64) {
        if let Some(busy) = self.busy.get_mut(&index) {
            busy.now -= 1;
            if busy.now == 0 {
                self.busy.remove(&index);
            }
        }
    }

    /// To whoever is changing the object: was nobody else, at any moment since it began.
    fn is_alone(&self, index: u64) -> bool {
        self.busy.get(&index).is_some_and(|busy| busy.all == 1)
    }

    fn raw(&self, index: u64) -> Option<[u8; 8]> {
        let (segment, at) = place(index);
        let bytes = self.segments.get(&segment)?;
        Some(bytes.get(at..at + 8).and_then(|raw| raw.try_into().ok()).unwrap_or_default())
    }

    fn put(&mut self, index: u64, raw: [u8; 8]) {
        let (segment, at) = place(index);
        let Some(bytes) = self.segments.get_mut(&segment) else { return };
        if bytes.len() < at + 8 {
            bytes.resize(at + 8, 0);
        }
        if let Some(place) = bytes.get_mut(at..at + 8) {
            place.copy_from_slice(&raw);
        }
    }
}

impl Marks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept may be of an old view.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.turn += 1;
        state.segments.clear();
    }
}

/// Ranges of objects that are worked on one after the other.
pub(crate) fn parts(all: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut from = all.start;
    std::iter::from_fn(move || {
        if from >= all.end {
            return None;
        }
        let end = ((from / PART + 1) * PART).min(all.end);
        let part = from..end;
        from = end;
        Some(part)
    })
}

impl View {
    /// Is there a map that is kept.
    pub(crate) fn has_map(&self) -> bool {
        self.held.image.features & FEATURE_MAP != 0
    }

    /// May the map of this view be asked.
    fn asks_map(&self) -> bool {
        let good = self.has_map() && self.held.image.flags & FLAG_MAP_BAD == 0;
        good && self.at.is_none_or(|at| at > self.held.image.map_since)
    }
}

impl Image {
    fn chunk(&self, chunk: u64) -> nacre_client::Object {
        self.0.data.object(format!("block.map.{:016x}.{chunk:08x}", self.id()))
    }

    async fn read_entries(&self, at: Option<SnapId>, range: Range<u64>) -> Result<Bytes, Error> {
        let chunk = self.chunk(range.start / CHUNK);
        let chunk = match at {
            Some(snapshot) => chunk.at(snapshot),
            None => chunk,
        };
        match chunk.read(range.start % CHUNK * ENTRY, (range.end - range.start) * ENTRY).await {
            Ok(bytes) => Ok(bytes),
            Err(error) if is_absent(&error) => Ok(Bytes::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn entry(&self, raw: &[u8], from: u64, index: u64) -> Entry {
        let at = ((index - from) * ENTRY) as usize;
        let raw = raw.get(at..at + 8).and_then(|raw| raw.try_into().ok()).unwrap_or_default();
        Entry::decode(self.id(), index, raw)
    }

    /// The entries of a part, if there is a map that may be asked. Who does not write the image may not have heard yet that
    /// its map is to be asked no more, or is gone: the header has the word, and is asked after the entries.
    async fn entries_in_force(&self, view: &View, part: Range<u64>) -> Result<Option<Bytes>, Error> {
        let same = |head: &Head| {
            let of = |head: &Head| (head.features & FEATURE_MAP, head.flags & FLAG_MAP_BAD, head.map_since);
            of(head) == of(&view.held.image)
        };
        let mut known = view.held.image.change;
        for _ in 0..RACES {
            if !view.asks_map() {
                break;
            }
            let raw = self.read_entries(view.at, part.clone()).await?;
            if self.hold().is_some() {
                return Ok(Some(raw));
            }
            let head = self.0.header.get().await?.image;
            if !same(&head) {
                break;
            }
            if head.change == known {
                return Ok(Some(raw));
            }
            known = head.change;
        }
        Ok(None)
    }

    /// The objects of a part (see [`parts()`]) that may be as wanted; all, if no map can be asked.
    pub(crate) async fn picked(
        &self,
        view: &View,
        part: Range<u64>,
        want: impl Fn(u64, Entry) -> bool,
    ) -> Result<Vec<u64>, Error> {
        let Some(raw) = self.entries_in_force(view, part.clone()).await? else { return Ok(part.collect()) };
        let from = part.start;
        Ok(part.filter(|index| want(*index, self.entry(&raw, from, *index))).collect())
    }

    /// The same, of objects that may exist.
    pub(crate) async fn existing(&self, view: &View, part: Range<u64>) -> Result<Vec<u64>, Error> {
        // Of a snapshot, a parent's copy may not be in the map.
        let unsure = view.at.and(view.parent.as_ref()).map_or(0, |parent| parent.overlap);
        self.picked(view, part, |index, entry| entry.exists || view.layout.below(index, unsure) > 0).await
    }

    /// May an object exist: false only if it surely does not.
    pub(crate) async fn may_exist(&self, view: &View, index: u64) -> Result<bool, Error> {
        if !view.asks_map() {
            return Ok(true);
        }
        let known = || self.0.marks.state().raw(index).map(|raw| Entry::decode(self.id(), index, raw).exists);
        if let Some(exists) = known() {
            return Ok(exists);
        }
        let _turn = self.0.marks.writing.lock().await;
        if let Some(exists) = known() {
            return Ok(exists);
        }
        // Nothing changes: read, and kept.
        self.change(&[(index, Change::Nothing)]).await?;
        Ok(known().unwrap_or(true))
    }

    /// An object is about to change: when this is done, the map says so.
    pub(crate) async fn touch(&self, index: u64) -> Result<Touch<'_>, Error> {
        let marks = &self.0.marks;
        if !self.view().has_map() {
            return Ok(Touch { marks: None, index });
        }
        let known = |state: &State| {
            let entry = state.raw(index).map(|raw| Entry::decode(self.id(), index, raw));
            entry.is_some_and(|entry| entry.exists && entry != UNKNOWN && entry.changed >= self.view().keeps.seq)
        };
        let touch = Touch { marks: Some(marks), index };
        {
            let mut state = marks.state();
            state.begin(index);
            if known(&state) {
                return Ok(touch);
            }
            state.wanted.insert(index);
        }
        let _turn = marks.writing.lock().await;
        let batch: Vec<(u64, Change)> = {
            let mut state = marks.state();
            if known(&state) {
                return Ok(touch);
            }
            // Whoever had it before may not have come to an end.
            state.wanted.insert(index);
            std::mem::take(&mut state.wanted).into_iter().map(|index| (index, Change::Touched)).collect()
        };
        self.change(&batch).await?;
        Ok(touch)
    }

    /// Objects were removed, and their entries are to say so, unless others changed them since it began. Goes on when nobody
    /// waits for it any more: as long as it does, the gate is held.
    pub(crate) async fn gone(
        &self,
        removals: Vec<Touch<'_>>,
        gate: Arc<OwnedRwLockReadGuard<()>>,
    ) -> Result<(), Error> {
        let mut removed: Vec<u64> =
            removals.into_iter().filter(|touch| touch.marks.is_some()).map(|touch| touch.index).collect();
        if removed.is_empty() {
            return Ok(());
        }
        removed.sort_unstable();
        let image = self.clone();
        let done = tokio::spawn(async move {
            let _gate = gate;
            let marks = &image.0.marks;
            let _turn = Arc::clone(&marks.writing).lock_owned().await;
            let batch: Vec<(u64, Change)> = {
                let mut state = marks.state();
                let alone: Vec<u64> = removed.iter().copied().filter(|index| state.is_alone(*index)).collect();
                // From now on who changes one of them waits for its turn.
                for index in &alone {
                    state.segments.remove(&place(*index).0);
                }
                alone.into_iter().map(|index| (index, Change::Gone)).collect()
            };
            image.change(&batch).await?;
            let mut state = marks.state();
            removed.into_iter().for_each(|index| state.end(index));
            Ok(())
        });
        match done.await {
            Ok(done) => done,
            // The runtime is going down: the map names too many objects, which it may.
            Err(_) => Ok(()),
        }
    }

    /// The same for many objects at once, by one who knows that nobody else changes them.
    pub(crate) async fn change_all(&self, indices: &[u64], change: Change) -> Result<(), Error> {
        if indices.is_empty() || !self.view().has_map() {
            return Ok(());
        }
        let _turn = self.0.marks.writing.lock().await;
        let batch: Vec<(u64, Change)> = indices.iter().map(|index| (*index, change)).collect();
        self.change(&batch).await
    }

    /// Writes entries, in rising order. Whoever calls has the turn.
    async fn change(&self, batch: &[(u64, Change)]) -> Result<(), Error> {
        for part in batch.chunk_by(|a, b| a.0 / SEGMENT == b.0 / SEGMENT) {
            let Some((first, _)) = part.first() else { continue };
            let segment = first / SEGMENT;
            for round in 0.. {
                let turn = self.0.marks.state().turn;
                let keeps = Arc::clone(&self.view().keeps);
                let known = self.0.marks.state().segments.get(&segment).map(|bytes| bytes.clone().freeze());
                let raw = match known {
                    Some(raw) => raw,
                    None => self.read_entries(None, segment * SEGMENT..(segment + 1) * SEGMENT).await?,
                };
                let done = self.change_segment(segment, raw, part, &keeps).await;
                let mut state = self.0.marks.state();
                match done {
                    Ok(raw) if state.turn == turn => {
                        if state.segments.len() >= KEPT && !state.segments.contains_key(&segment) {
                            state.segments.pop_first();
                        }
                        state.segments.insert(segment, raw);
                        break;
                    }
                    Ok(_) if round < RACES => drop(state.segments.remove(&segment)),
                    Err(Error::Cluster(error)) if is_guard(&error) && round < RACES => {
                        drop(state.segments.remove(&segment));
                    }
                    Ok(_) => return Err(Error::Raced { image: self.name() }),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Writes entries of one segment if they are still what they are thought to be; gives the segment as it is then.
    async fn change_segment(
        &self,
        segment: u64,
        raw: Bytes,
        part: &[(u64, Change)],
        keeps: &Arc<SnapContext>,
    ) -> Result<BytesMut, Error> {
        let first = segment * SEGMENT;
        let mut state = State::default();
        state.segments.insert(segment, BytesMut::from(&raw[..]));
        let mut runs: Vec<(u64, BytesMut, BytesMut)> = Vec::new();
        for (index, change) in part {
            let before = state.raw(*index).unwrap_or_default();
            if *change == Change::Nothing {
                continue;
            }
            let entry = Entry::decode(self.id(), *index, before).become_now(*change, keeps.seq);
            let after = entry.encode(self.id(), *index);
            if before == after {
                continue;
            }
            state.put(*index, after);
            let at = (index % CHUNK) * ENTRY;
            match runs.last_mut() {
                Some((from, old, new)) if *from + old.len() as u64 == at => {
                    old.extend_from_slice(&before);
                    new.extend_from_slice(&after);
                }
                _ => runs.push((at, BytesMut::from(&before[..]), BytesMut::from(&after[..]))),
            }
        }
        // Operations of a vector are bounded.
        for runs in runs.chunks(64) {
            let mut ops = vec![Op::Create { exclusive: false }];
            let compare = |(at, old, _): &(u64, BytesMut, BytesMut)| Op::CompareExtent {
                offset: *at,
                data: old.clone().freeze(),
            };
            let write =
                |(at, _, new): &(u64, BytesMut, BytesMut)| Op::Write { offset: *at, data: new.clone().freeze() };
            ops.extend(runs.iter().map(compare));
            ops.extend(runs.iter().map(write));
            self.chunk(first / CHUNK).keeping(keeps).execute(ops).await?;
        }
        Ok(state.segments.remove(&segment).unwrap_or_default())
    }

    /// How many objects the map once had, as far as it was shrunk.
    async fn most_chunks(&self) -> Result<u64, Error> {
        let noted = match self.chunk(0).xattr(MOST).await {
            Err(nacre_client::Error::Object { source: OpError::NotFound { .. } | OpError::NoAttr { .. }, .. }) => {
                return Ok(0);
            }
            noted => noted?,
        };
        Ok(noted[..].try_into().map_or(0, u64::from_le_bytes))
    }

    /// An image is about to end at its size, and not at this end any more: what its map had is remembered, so that it can
    /// be removed with the image. Entries past the end stay: they say what changed since snapshots.
    pub(crate) async fn shrink_map(&self, view: &View, end: u64) -> Result<(), Error> {
        let chunks = view.layout.objects(end).div_ceil(CHUNK);
        if !view.has_map() || chunks <= 1 || chunks <= self.most_chunks().await? {
            return Ok(());
        }
        let value = Bytes::copy_from_slice(&chunks.to_le_bytes());
        let note = vec![Op::Create { exclusive: false }, Op::SetXattr { name: Bytes::from(MOST), value }];
        Ok(self.chunk(0).keeping(&view.keeps).execute(note).await.map(drop)?)
    }

    /// Removes the map. Nothing of the image may be left.
    pub(crate) async fn remove_map(&self, view: &View) -> Result<(), Error> {
        if !view.has_map() {
            return Ok(());
        }
        let end = view.layout.objects(view.held.image.size.max(view.held.image.trim_end));
        let chunks = end.div_ceil(CHUNK).max(self.most_chunks().await?);
        let removals = (1..chunks).map(|chunk| self.remove_chunk(view, chunk));
        stream::iter(removals).buffer_unordered(ABREAST).try_collect::<()>().await?;
        // The first goes last: it says how many there are.
        self.remove_chunk(view, 0).await
    }

    async fn remove_chunk(&self, view: &View, chunk: u64) -> Result<(), Error> {
        match self.chunk(chunk).keeping(&view.keeps).remove().await {
            Err(error) if !is_absent(&error) => Err(Error::from(error)),
            _ => Ok(()),
        }
    }

    /// Compares the map of this image, or of this snapshot, with each of its objects.
    pub async fn check_map(&self, mut progress: impl FnMut(u64, u64)) -> Result<Checked, Error> {
        let view = self.view();
        let mut checked = Checked { used: view.has_map(), asked: view.asks_map(), ..Checked::default() };
        if !checked.asked {
            return Ok(checked);
        }
        let all = view.layout.objects(view.size);
        let view = &view;
        for part in parts(0..all) {
            let looks =
                part.clone().map(|index| async move { Ok::<_, Error>((index, self.stored(view, index).await?)) });
            let there: BTreeSet<u64> = stream::iter(looks)
                .buffer_unordered(2 * ABREAST)
                .try_filter_map(|(index, stat)| async move { Ok(stat.map(|_| index)) })
                .try_collect()
                .await?;
            // The map is read after the objects: what came to exist meanwhile is in it.
            let said: BTreeSet<u64> = self.existing(view, part.clone()).await?.into_iter().collect();
            for index in there.difference(&said) {
                // Unless it went meanwhile.
                let there = self.stored(view, *index).await?.is_some();
                if there && !self.existing(view, *index..index + 1).await?.contains(index) {
                    checked.missed += 1;
                }
            }
            checked.objects += there.len() as u64;
            checked.maybe += said.difference(&there).count() as u64;
            progress(part.end, all);
        }
        Ok(checked)
    }

    /// Marks the map as one that is not to be asked.
    pub async fn distrust_map(&self) -> Result<(), Error> {
        self.set_flags(FLAG_MAP_BAD, 0).await
    }

    /// Makes the map anew from the objects, also where there was none. To be opened for writing; nothing is written
    /// meanwhile. Snapshots that are there already get no map.
    pub async fn rebuild_map(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        self.writable()?;
        self.trim().await?;
        let bad = MapSet { used: true, good: false, since: self.view().keeps.seq };
        self.0.header.map_set(&bad).await?;
        self.announce().await?;
        let since = {
            let _alone = self.0.gate.write().await;
            self.settle().await?;
            self.refresh_alone().await?;
            let view = self.view();
            let view = &view;
            let all = view.layout.objects(view.size);
            for part in parts(0..all) {
                let looks =
                    part.clone().map(|index| async move { Ok::<_, Error>((index, self.stored(view, index).await?)) });
                let batch: Vec<(u64, Change)> = stream::iter(looks)
                    .buffered(2 * ABREAST)
                    .map_ok(|(index, stat)| (index, if stat.is_some() { Change::Touched } else { Change::Gone }))
                    .try_collect()
                    .await?;
                // Each entry: what was removed since a snapshot is to be known as well.
                let _turn = self.0.marks.writing.lock().await;
                self.change(&batch).await?;
                progress(part.end, all);
            }
            // Of the snapshots that were there when it was begun: one may have come since it was asked for.
            view.keeps.seq
        };
        self.0.header.map_set(&MapSet { used: true, good: true, since }).await?;
        self.announce().await.map(drop)
    }
}

impl Image {
    /// Keeps no map any more. To be opened for writing.
    pub async fn drop_map(&self) -> Result<(), Error> {
        self.writable()?;
        let view = self.view();
        self.0.header.map_set(&MapSet { used: false, good: true, since: SnapId(0) }).await?;
        self.announce().await?;
        self.remove_map(&view).await
    }
}

/// What a comparison of a map with its objects found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The image has a map.
    pub used: bool,
    /// It may be asked: it is not marked as bad, and not younger than the snapshot.
    pub asked: bool,
    /// Objects that exist.
    pub objects: u64,
    /// Objects that exist and are not in the map: there must be none.
    pub missed: u64,
    /// Objects that the map names and that do not exist: they cost a look.
    pub maybe: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_objects_of_the_map_do() {
        assert_eq!(parts(3..3).count(), 0);
        assert_eq!(parts(5..PART + 2).collect::<Vec<_>>(), [5..PART, PART..PART + 2]);
        assert!(CHUNK.is_multiple_of(PART) && PART.is_multiple_of(SEGMENT));
    }

    #[test]
    fn an_object_is_only_gone_if_nobody_else_changed_it_since_its_removal_began() {
        let mut state = State::default();
        // A removal, by itself.
        state.begin(1);
        assert!(state.is_alone(1) && !state.is_alone(2));
        // A write that begins and ends meanwhile may have made the object again.
        state.begin(1);
        state.end(1);
        assert!(!state.is_alone(1));
        state.end(1);
        // So may one that was there before and ends meanwhile.
        state.begin(1);
        state.begin(1);
        state.end(1);
        assert!(!state.is_alone(1));
        state.end(1);
        assert!(state.busy.is_empty());
        state.begin(1);
        assert!(state.is_alone(1));
    }
}
