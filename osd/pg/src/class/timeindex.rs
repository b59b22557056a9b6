//! Class `timeindex`: things to be found by their time, such as what is to expire.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `add` | [`Set`] | nothing |
//! | `trim` | `(u64, u64)`: from, to (not included) | nothing |
//! | `list` (reads) | `(u64, u64)` as above, then [`super::Page`] | entries with marks, `bool`: more follow |
//!
//! An entry is known by its time and key: adding it again replaces it, so a repeated call is harmless. A mark is time (8
//! bytes big-endian) and key. Entries live in the omap under `\x80timeindex/`.

use bytes::Bytes;

use super::log::under;
use super::{Class, Method, Page, Scope, code, encode, input, number_of, numbered, refuse};
use crate::codec_struct;
use crate::exec::Stop;

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its time, milliseconds since 1970.
    pub time_ms: u64,
    /// What it is, not empty.
    pub key: Bytes,
    /// The rest.
    pub value: Bytes,
}
codec_struct!(Entry { time_ms, key, value });

/// Input of `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// In any order.
    pub entries: Vec<Entry>,
}
codec_struct!(Set { entries });

const PREFIX: &[u8] = b"\x80timeindex/";

/// The class.
pub struct TimeIndex;

impl Class for TimeIndex {
    fn name(&self) -> &'static str {
        "timeindex"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "add", writes: true, run: add },
            Method { name: "trim", writes: true, run: trim },
            Method { name: "list", writes: false, run: list },
        ]
    }
}

fn add(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let Set { entries } = input(raw)?;
    if entries.is_empty() || entries.iter().any(|e| e.key.is_empty()) {
        return Err(refuse(code::MALFORMED));
    }
    let entries = entries.into_iter().map(|e| (under(&numbered(PREFIX, e.time_ms), &e.key), e.value)).collect();
    s.omap_set(entries)?;
    Ok(Bytes::new())
}

fn trim(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let (from, to): (u64, u64) = input(raw)?;
    if from >= to {
        return Err(refuse(code::MALFORMED));
    }
    s.omap_remove_range(numbered(PREFIX, from), numbered(PREFIX, to))?;
    Ok(Bytes::new())
}

fn list(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let ((from, to), Page { after, max }): ((u64, u64), Page) = input(raw)?;
    let after = if after.is_empty() {
        // Keys are not empty, so nothing is stored just here.
        Some(numbered(PREFIX, from))
    } else {
        Some(under(PREFIX, &after))
    };
    let (list, mut more) = s.omap_range(after.as_ref(), PREFIX, max)?;
    let mut out: Vec<(Bytes, Entry)> = Vec::with_capacity(list.len());
    for (k, value) in list {
        let time_ms = number_of(PREFIX, &k).ok_or_else(|| refuse(code::STORED))?;
        if time_ms >= to {
            more = false;
            break;
        }
        let mark = k.slice(PREFIX.len()..);
        out.push((mark.clone(), Entry { time_ms, key: mark.slice(8..), value }));
    }
    Ok(encode(&(out, more)))
}
