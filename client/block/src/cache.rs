//! Write-back: writes that are answered before they are durable, until a flush. For one open image, within a bound.
//!
//! What was written waits by object and goes out together, so that small writes next to each other cost one. A write is
//! answered at once while there is room, and waits for room otherwise. A flush ends when all that was answered before it
//! is durable; what comes meanwhile does not hold it up.
//!
//! Invariants:
//! 1. Of one object, one batch is on its way at a time: what is durable of it is a state it had.
//! 2. A read looks here first and at the objects then: what leaves the cache is durable, so nothing is missed between.
//! 3. After a batch failed, nothing is answered any more but with that failure: nobody takes lost bytes for stored ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Notify;

use crate::error::Error;
use crate::image::{ABREAST, Image};

/// How long writes wait for others to join them.
const LINGER: Duration = Duration::from_millis(10);

/// Bytes of one object that are not durable yet; no two overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents(BTreeMap<u64, Bytes>);

impl Extents {
    /// Puts bytes over what is there; by how much there is more.
    fn put(&mut self, at: u64, data: Bytes) -> u64 {
        let end = at + data.len() as u64;
        let mut gone = 0;
        let before = self.0.range(..at).next_back().map(|(from, data)| (*from, data.clone()));
        if let Some((from, old)) = before {
            let old_end = from + old.len() as u64;
            if old_end > at {
                gone += old_end.min(end) - at;
                self.0.insert(from, old.slice(..(at - from) as usize));
                if old_end > end {
                    self.0.insert(end, old.slice((end - from) as usize..));
                }
            }
        }
        let inside: Vec<u64> = self.0.range(at..end).map(|(from, _)| *from).collect();
        for from in inside {
            let Some(old) = self.0.remove(&from) else { continue };
            let old_end = from + old.len() as u64;
            gone += old_end.min(end) - from;
            if old_end > end {
                self.0.insert(end, old.slice((end - from) as usize..));
            }
        }
        let more = data.len() as u64 - gone;
        self.0.insert(at, data);
        more
    }

    /// What of it lies in a range.
    fn within(&self, at: u64, len: u64) -> Vec<(u64, Bytes)> {
        let end = at + len;
        let first = self.0.range(..=at).next_back().map_or(at, |(from, _)| *from);
        let cut = |(from, data): (&u64, &Bytes)| {
            let (a, b) = ((*from).max(at), (*from + data.len() as u64).min(end));
            (a < b).then(|| (a, data.slice((a - from) as usize..(b - from) as usize)))
        };
        self.0.range(first..end).filter_map(cut).collect()
    }

    fn len(&self) -> u64 {
        self.0.values().map(|data| data.len() as u64).sum()
    }

    /// As writes, those that touch joined.
    fn joined(self) -> Vec<(u64, Bytes)> {
        let mut runs: Vec<(u64, Vec<Bytes>, u64)> = Vec::new();
        for (from, data) in self.0 {
            let len = data.len() as u64;
            match runs.last_mut() {
                Some(last) if last.2 == from => {
                    last.1.push(data);
                    last.2 += len;
                }
                _ => runs.push((from, vec![data], from + len)),
            }
        }
        let join = |(from, mut parts, end): (u64, Vec<Bytes>, u64)| {
            if parts.len() == 1 {
                return (from, parts.pop().unwrap_or_default());
            }
            let mut whole = BytesMut::with_capacity((end - from) as usize);
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            (from, whole.freeze())
        };
        runs.into_iter().map(join).collect()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    extents: Extents,
    /// The number of the first write in it.
    first: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Writes so far.
    count: u64,
    /// Bytes that are not durable.
    bytes: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// On their way.
    leaving: BTreeMap<u64, Waiting>,
    /// Somebody sees to it that what waits goes out.
    tended: bool,
    failed: Option<String>,
}

impl State {
    fn pending(&self, upto: u64) -> bool {
        self.waiting.values().chain(self.leaving.values()).any(|object| object.first <= upto)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: u64,
    state: Mutex<State>,
    /// A batch ended.
    moved: Notify,
    /// There is no time to linger.
    hurry: Notify,
}

impl Cache {
    pub(crate) fn new(limit: u64) -> Cache {
        Cache { limit, state: Mutex::default(), moved: Notify::new(), hurry: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are not durable yet.
    pub(crate) fn dirty(&self) -> u64 {
        self.state().bytes
    }

    fn failure(&self, image: &Image) -> Result<(), Error> {
        match &self.state().failed {
            Some(why) => Err(Error::Lost { image: image.name(), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Takes in a write of one object.
    pub(crate) async fn put(&self, image: &Image, index: u64, at: u64, data: &Bytes) -> Result<(), Error> {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let tend = {
                let mut state = self.state();
                if let Some(why) = &state.failed {
                    return Err(Error::Lost { image: image.name(), why: why.clone() });
                }
                let fits = state.bytes == 0 || state.bytes + data.len() as u64 <= self.limit;
                if fits {
                    state.count += 1;
                    let count = state.count;
                    let object = state.waiting.entry(index).or_default();
                    if object.first == 0 {
                        object.first = count;
                    }
                    let more = object.extents.put(at, data.clone());
                    state.bytes += more;
                }
                if state.bytes * 2 > self.limit || !fits {
                    self.hurry.notify_one();
                }
                let tend = !std::mem::replace(&mut state.tended, true);
                (fits, tend)
            };
            if tend.1 {
                tokio::spawn(tend_to(image.clone()));
            }
            if tend.0 {
                return Ok(());
            }
            moved.await;
        }
    }

    /// What of a range of an object is here: older first.
    pub(crate) fn get(&self, index: u64, at: u64, len: u64) -> Vec<(u64, Bytes)> {
        let state = self.state();
        let of = |object: &Waiting| object.extents.within(at, len);
        let older = state.leaving.get(&index).map(of).unwrap_or_default();
        let newer = state.waiting.get(&index).map(of).unwrap_or_default();
        older.into_iter().chain(newer).collect()
    }

    /// Ends when all that was answered before is durable.
    pub(crate) async fn flush(&self, image: &Image) -> Result<(), Error> {
        let upto = self.state().count;
        loop {
            self.failure(image)?;
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let batch: Vec<(u64, Extents)> = {
                let mut state = self.state();
                if !state.pending(upto) {
                    return Ok(());
                }
                let due = state.waiting.iter().filter(|(_, object)| object.first <= upto).map(|(index, _)| *index);
                let due: Vec<u64> = due.filter(|index| !state.leaving.contains_key(index)).collect();
                let mut batch = Vec::with_capacity(due.len());
                for index in due {
                    if let Some(object) = state.waiting.remove(&index) {
                        batch.push((index, object.extents.clone()));
                        state.leaving.insert(index, object);
                    }
                }
                batch
            };
            if batch.is_empty() {
                // Others have them in hand.
                moved.await;
                continue;
            }
            // In a task of its own: a caller that goes away must not leave a batch that nobody ends.
            let image = image.clone();
            let sent = tokio::spawn(async move { send(&image, batch).await });
            let _ = sent.await;
        }
    }
}

/// Writes a batch out.
async fn send(image: &Image, batch: Vec<(u64, Extents)>) {
    let view = image.view();
    let view = &view;
    let writes = batch.into_iter().map(|(index, extents)| async move {
        let len = extents.len();
        (index, len, image.write_parts(view, index, extents.joined()).await)
    });
    let mut writes = stream::iter(writes).buffer_unordered(ABREAST);
    let Some(cache) = image.cache() else { return };
    while let Some((index, len, done)) = writes.next().await {
        {
            let mut state = cache.state();
            state.leaving.remove(&index);
            // What was written over in between was counted when it came.
            state.bytes = state.bytes.saturating_sub(len);
            if let Err(error) = done {
                let error = image.noted(error);
                tracing::error!(image = image.name(), %error, "what was written could not be stored");
                state.failed.get_or_insert_with(|| format!("what was written could not be stored: {error}"));
                state.waiting.clear();
                state.bytes = 0;
            }
        }
        cache.moved.notify_waiters();
    }
}

/// Sees to it that what waits goes out, until nothing does.
async fn tend_to(image: Image) {
    loop {
        let Some(cache) = image.cache() else { return };
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = cache.hurry.notified() => {}
        }
        let failed = cache.flush(&image).await.is_err();
        let mut state = cache.state();
        if failed || (state.waiting.is_empty() && state.leaving.is_empty()) {
            state.tended = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_are_the_bytes_last_written(writes in proptest::collection::vec((0u64..200, 1usize..60, any::<u8>()), 1..40)) {
            let mut extents = Extents::default();
            let mut model: Vec<Option<u8>> = vec![None; 300];
            let mut bytes = 0;
            for (at, len, byte) in writes {
                bytes += extents.put(at, Bytes::from(vec![byte; len]));
                model[at as usize..at as usize + len].fill(Some(byte));
                prop_assert_eq!(bytes, model.iter().flatten().count() as u64);
                prop_assert_eq!(bytes, extents.len());
            }
            for (from, len) in [(0, 300), (50, 100), (10, 1), (299, 1)] {
                let mut seen = vec![None; len];
                for (at, data) in extents.within(from, len as u64) {
                    for (i, byte) in data.iter().enumerate() {
                        let place: &mut Option<u8> = &mut seen[(at - from) as usize + i];
                        prop_assert!(place.is_none(), "two extents overlap");
                        *place = Some(*byte);
                    }
                }
                prop_assert_eq!(&seen[..], &model[from as usize..from as usize + len]);
            }
            let runs = extents.joined();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].0 + (pair[0].1.len() as u64) < pair[1].0, "runs that touch are one");
            }
            let joined: u64 = runs.iter().map(|(_, data)| data.len() as u64).sum();
            prop_assert_eq!(joined, bytes);
        }
    }
}
