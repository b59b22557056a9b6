//! Read-ahead: who reads one piece after the other finds the next one here. Bounded, and only where nobody else can
//! change what is read: for the image's writer, and for snapshots.
//!
//! Invariants:
//! 1. What stands here is what a read of the image would give now: a write takes out what it touches before it begins and
//!    again before it is answered, so that nothing read in between stays.
//! 2. Never more than [`BOUND`] bytes of an image are here or on their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes of one image, here or on their way.
pub(crate) const BOUND: u64 = 8 << 20;
/// What is fetched at a time grows with what was read in a row, between these.
const LEAST: u64 = 256 << 10;
const MOST: u64 = 2 << 20;
/// Readers that are told from each other.
const STREAMS: usize = 8;
/// Reads in a row before anything is fetched for them.
const ROW: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Where the next read begins, if it goes on.
    next: u64,
    /// Fetched up to here.
    to: u64,
    /// Bytes and reads in a row.
    run: u64,
    reads: u32,
    used: u64,
}

#[derive(Debug)]
enum Window {
    Coming { len: u64, turn: u64, there: Arc<Notify> },
    Here(Bytes),
}

impl Window {
    fn len(&self) -> u64 {
        match self {
            Window::Coming { len, .. } => *len,
            Window::Here(data) => data.len() as u64,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    streams: Vec<Stream>,
    /// By where they begin; no two overlap.
    windows: BTreeMap<u64, Window>,
    bytes: u64,
    turns: u64,
}

/// What is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    turn: u64,
}

enum Look {
    Found(Bytes),
    Wait(Arc<Notify>),
    Nothing,
}

impl State {
    /// The first window that reaches past a place and begins before an end.
    fn touching(&self, from: u64, end: u64) -> Option<u64> {
        let before = self.windows.range(..=from).next_back().filter(|(at, window)| *at + window.len() > from);
        before.or_else(|| self.windows.range(from..end).next()).map(|(at, _)| *at)
    }

    fn take(&mut self, at: u64) -> Option<Window> {
        let window = self.windows.remove(&at)?;
        self.bytes -= window.len();
        Some(window)
    }

    fn look(&mut self, offset: u64, len: u64) -> Look {
        let end = offset + len;
        let (mut parts, mut pos): (Vec<Bytes>, u64) = (Vec::new(), offset);
        while pos < end {
            let Some((at, window)) = self.windows.range(..=pos).next_back() else { return Look::Nothing };
            let reach = at + window.len();
            if reach <= pos {
                return Look::Nothing;
            }
            match window {
                Window::Coming { there, .. } => return Look::Wait(Arc::clone(there)),
                Window::Here(data) => {
                    let upto = reach.min(end);
                    parts.push(data.slice((pos - at) as usize..(upto - at) as usize));
                    pos = upto;
                }
            }
        }
        // Read to its end, it has done its work.
        while let Some(at) = self.touching(offset, end) {
            if self.windows.get(&at).is_none_or(|window| at + window.len() > end) {
                break;
            }
            self.take(at);
        }
        match parts.len() {
            1 => parts.pop().map_or(Look::Nothing, Look::Found),
            _ => {
                let mut whole = BytesMut::with_capacity(len as usize);
                parts.iter().for_each(|part| whole.extend_from_slice(part));
                Look::Found(whole.freeze())
            }
        }
    }

    fn note(&mut self, offset: u64, len: u64, size: u64) -> Option<Fetch> {
        self.turns += 1;
        let turn = self.turns;
        let Some(at) = self.streams.iter().position(|stream| stream.next == offset) else {
            let new = Stream { next: offset + len, to: offset + len, run: len, reads: 1, used: turn };
            if self.streams.len() < STREAMS {
                self.streams.push(new);
            } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.used) {
                *oldest = new;
            }
            return None;
        };
        let stream = self.streams.get_mut(at)?;
        stream.next = offset + len;
        stream.run += len;
        stream.reads = stream.reads.saturating_add(1);
        stream.used = turn;
        stream.to = stream.to.max(stream.next);
        let window = stream.run.next_power_of_two().clamp(LEAST, MOST);
        if stream.reads < ROW || stream.to - stream.next >= window {
            return None;
        }
        let from = stream.to;
        let len = size.saturating_sub(from).min(window);
        if len == 0 || self.touching(from, from + len).is_some() {
            return None;
        }
        // What others left behind makes room.
        while self.bytes + len > BOUND {
            let needed = |at: u64| self.streams.iter().any(|s| s.next <= at && at < s.to && turn - s.used < 64);
            let idle = self.windows.iter().find(|(at, window)| matches!(window, Window::Here(_)) && !needed(**at));
            let idle = idle.map(|(at, _)| *at)?;
            self.take(idle);
        }
        if let Some(stream) = self.streams.get_mut(at) {
            stream.to = from + len;
        }
        self.bytes += len;
        self.windows.insert(from, Window::Coming { len, turn, there: Arc::default() });
        Some(Fetch { offset: from, len, turn })
    }

    fn forget(&mut self, offset: u64, len: u64) {
        while let Some(at) = self.touching(offset, offset.saturating_add(len)) {
            if let Some(Window::Coming { there, .. }) = self.take(at) {
                there.notify_waiters();
            }
            for stream in self.streams.iter_mut().filter(|stream| stream.to > at) {
                stream.to = stream.next;
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<State>);

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are here, or will be soon.
    pub(crate) async fn get(&self, offset: u64, len: u64) -> Option<Bytes> {
        loop {
            let there = {
                let mut state = self.state();
                match state.look(offset, len) {
                    Look::Found(data) => return Some(data),
                    Look::Nothing => return None,
                    // Made before the lock is gone: it hears of what comes from now on.
                    Look::Wait(there) => there.notified_owned(),
                }
            };
            there.await;
        }
    }

    /// Notes a read; what is to be fetched for those that follow it.
    pub(crate) fn note(&self, offset: u64, len: u64, size: u64) -> Option<Fetch> {
        self.state().note(offset, len, size)
    }

    /// What was to be fetched is there, or could not be had.
    pub(crate) fn came(&self, fetch: Fetch, data: Option<Bytes>) {
        let mut state = self.state();
        let mine = |window: &Window| matches!(window, Window::Coming { turn, .. } if *turn == fetch.turn);
        if !state.windows.get(&fetch.offset).is_some_and(mine) {
            return;
        }
        if let Some(Window::Coming { there, .. }) = state.take(fetch.offset) {
            if let Some(data) = data.filter(|data| data.len() as u64 == fetch.len) {
                state.bytes += fetch.len;
                state.windows.insert(fetch.offset, Window::Here(data));
            }
            there.notify_waiters();
        }
    }

    /// A range changes.
    pub(crate) fn forget(&self, offset: u64, len: u64) {
        self.state().forget(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 << 20;

    fn row(ahead: &Ahead, from: u64, piece: u64, count: u64) -> Vec<Fetch> {
        (0..count).filter_map(|n| ahead.note(from + n * piece, piece, SIZE)).collect()
    }

    #[tokio::test]
    async fn a_row_of_reads_is_fetched_for_and_other_reads_are_not() {
        let ahead = Ahead::default();
        for n in 0..100 {
            assert_eq!(ahead.note(n * 7919 % 97 * 100_000, 4096, SIZE), None);
        }
        let fetches = row(&ahead, 0, 65536, 3);
        assert_eq!(fetches.len(), 1);
        let fetch = fetches[0];
        assert_eq!((fetch.offset, fetch.len), (3 * 65536, LEAST));
        // Who comes before it is there waits for it.
        let data = Bytes::from(vec![7; fetch.len as usize]);
        let (got, ()) = tokio::join!(ahead.get(fetch.offset, 65536), async { ahead.came(fetch, Some(data)) });
        assert_eq!(got.unwrap(), vec![7; 65536]);
        assert_eq!(ahead.get(fetch.offset + fetch.len - 10, 20).await, None, "it reaches past what is there");
        assert!(ahead.get(fetch.offset + 65536, 3 * 65536).await.is_some());
        assert_eq!(ahead.state().bytes, 0, "what was read to its end is gone");
    }

    #[tokio::test]
    async fn what_changes_is_not_served_even_if_it_comes_later() {
        let ahead = Ahead::default();
        let fetch = row(&ahead, 0, 65536, 3)[0];
        ahead.forget(fetch.offset + 5, 1);
        ahead.came(fetch, Some(Bytes::from(vec![1; fetch.len as usize])));
        assert_eq!(ahead.get(fetch.offset, 10).await, None);
        let again = ahead.note(3 * 65536, 65536, SIZE).unwrap();
        ahead.came(again, Some(Bytes::from(vec![2; again.len as usize])));
        assert!(ahead.get(again.offset, 10).await.is_some());
        ahead.forget(0, u64::MAX);
        assert_eq!(ahead.get(again.offset, 10).await, None);
        assert_eq!(ahead.state().bytes, 0);
    }

    #[test]
    fn it_stays_within_its_bound_however_many_read() {
        let ahead = Ahead::default();
        for n in 0..200 {
            for reader in 0..12 {
                let from = reader * (5 << 20) + n * 65536;
                if let Some(fetch) = ahead.note(from, 65536, SIZE) {
                    ahead.came(fetch, Some(Bytes::from(vec![0; fetch.len as usize])));
                }
                let state = ahead.state();
                assert_eq!(state.bytes, state.windows.values().map(Window::len).sum::<u64>());
                assert!(state.bytes <= BOUND, "{}", state.bytes);
            }
        }
    }
}
