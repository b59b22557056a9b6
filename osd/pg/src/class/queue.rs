//! Class `queue`: items in the order they were put, each with a number that rises by one and is never given twice.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `init` | [`Init`] | nothing |
//! | `put` | [`Entries`] | `u64`: the number of the first |
//! | `take` | [`Take`] | items: taken off the front |
//! | `remove` | [`Upto`] | nothing |
//! | `list` (reads) | [`super::Page`], mark = number as 8 bytes big-endian | items, `bool`: more follow |
//! | `status` (reads) | nothing | [`Status`] |
//!
//! A queue needs no `init`; it sets how much may wait. Items live in the omap under `\x80queue/`.

use bytes::Bytes;

use super::{Class, Method, Page, Scope, code, encode, input, number_of, numbered, refuse};
use crate::codec_struct;
use crate::exec::Stop;

/// Input of `init`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// Bytes of items that may wait; 0: no bound.
    pub max_bytes: u64,
}
codec_struct!(Init { max_bytes });

/// Input of `put`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// In order.
    pub items: Vec<Bytes>,
}
codec_struct!(Entries { items });

/// Input of `take`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Take {
    /// At most so many.
    pub max: u32,
}
codec_struct!(Take { max });

/// Input of `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upto {
    /// Items up to and including this number.
    pub number: u64,
}
codec_struct!(Upto { number });

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number.
    pub number: u64,
    /// What was put.
    pub data: Bytes,
}
codec_struct!(Item { number, data });

/// What is kept beside the items; output of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The number the next item gets; the first is 1.
    pub next: u64,
    /// Items below this number are gone.
    pub first: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// How many may; 0: no bound.
    pub max_bytes: u64,
}
codec_struct!(Status { next, first, bytes, max_bytes });

const NAME: &[u8] = b"status";
const PREFIX: &[u8] = b"\x80queue/";
/// Items of one `take`: its answer is kept for retries.
const TAKE_MAX: u32 = 256;

/// The class.
pub struct QueueClass;

impl Class for QueueClass {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "init", writes: true, run: init },
            Method { name: "put", writes: true, run: put },
            Method { name: "take", writes: true, run: take },
            Method { name: "remove", writes: true, run: remove },
            Method { name: "list", writes: false, run: list },
            Method { name: "status", writes: false, run: status },
        ]
    }
}

fn load(s: &mut Scope<'_, '_>) -> Result<Status, Stop> {
    Ok(s.state(NAME)?.unwrap_or(Status { next: 1, first: 1, ..Status::default() }))
}

fn init(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let Init { max_bytes } = input(raw)?;
    let mut st = load(s)?;
    st.max_bytes = max_bytes;
    s.set_state(NAME, &st)?;
    Ok(Bytes::new())
}

fn put(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let Entries { items } = input(raw)?;
    if items.is_empty() {
        return Err(refuse(code::MALFORMED));
    }
    let mut st = load(s)?;
    let first = st.next;
    let mut entries = Vec::with_capacity(items.len());
    for data in items {
        st.bytes = st.bytes.saturating_add(data.len() as u64);
        entries.push((numbered(PREFIX, st.next), data));
        st.next = st.next.checked_add(1).ok_or_else(|| refuse(code::NUMBER))?;
    }
    if st.max_bytes > 0 && st.bytes > st.max_bytes {
        return Err(refuse(code::FULL));
    }
    s.omap_set(entries)?;
    s.set_state(NAME, &st)?;
    Ok(encode(&first))
}

/// Items from the front, or after a number.
fn page(s: &mut Scope<'_, '_>, after: Option<u64>, max: u32) -> Result<(Vec<Item>, bool), Stop> {
    let after = after.map(|n| numbered(PREFIX, n));
    let (list, more) = s.omap_range(after.as_ref(), PREFIX, max)?;
    let items = list.into_iter().map(|(k, data)| number_of(PREFIX, &k).map(|number| Item { number, data }));
    Ok((items.collect::<Option<_>>().ok_or_else(|| refuse(code::STORED))?, more))
}

/// Forgets items up to and including a number; they are what `gone` lists.
fn drop_upto(s: &mut Scope<'_, '_>, st: &mut Status, gone: &[Item]) -> Result<(), Stop> {
    let Some(last) = gone.last() else { return Ok(()) };
    st.bytes = st.bytes.saturating_sub(gone.iter().map(|i| i.data.len() as u64).sum());
    st.first = last.number.saturating_add(1);
    s.omap_remove_range(numbered(PREFIX, 0), numbered(PREFIX, st.first))?;
    s.set_state(NAME, st)
}

fn take(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let Take { max } = input(raw)?;
    let mut st = load(s)?;
    let (items, _) = page(s, None, max.clamp(1, TAKE_MAX))?;
    drop_upto(s, &mut st, &items)?;
    Ok(encode(&items))
}

fn remove(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let Upto { number } = input(raw)?;
    let mut st = load(s)?;
    let (items, more) = page(s, None, super::STEPS_MAX / 2)?;
    let n = items.partition_point(|i| i.number <= number);
    if n == items.len() && more {
        return Err(refuse(code::LIMIT));
    }
    drop_upto(s, &mut st, &items[..n])?;
    Ok(Bytes::new())
}

fn list(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let Page { after, max } = input(raw)?;
    let after = match after.first_chunk::<8>() {
        Some(n) if after.len() == 8 => Some(u64::from_be_bytes(*n)),
        None if after.is_empty() => None,
        _ => return Err(refuse(code::MALFORMED)),
    };
    Ok(encode(&page(s, after, max)?))
}

fn status(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    Ok(encode(&load(s)?))
}
