//! Class `refcount`: who refers to the object, by tag. When the last one lets go, the object is removed.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `get` | [`Tag`] | nothing |
//! | `put` | [`Tag`] | `bool`: the object is gone |
//! | `set` | [`Tags`] | `bool`: the object is gone (no tags) |
//! | `list` (reads) | nothing | [`Tags`] |
//!
//! Getting twice under one tag is getting once, and putting what is not held is refused: a caller may repeat itself.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Class, Method, Scope, code, encode, input, refuse};
use crate::codec_struct;
use crate::exec::Stop;

/// One who refers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Its name, not empty.
    pub tag: Bytes,
}
codec_struct!(Tag { tag });

/// All who refer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Their names.
    pub tags: BTreeSet<Bytes>,
}
codec_struct!(Tags { tags });

const NAME: &[u8] = b"tags";

/// The class.
pub struct RefCount;

impl Class for RefCount {
    fn name(&self) -> &'static str {
        "refcount"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "get", writes: true, run: get },
            Method { name: "put", writes: true, run: put },
            Method { name: "set", writes: true, run: set },
            Method { name: "list", writes: false, run: list },
        ]
    }
}

fn get(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let Tag { tag } = input(raw)?;
    if tag.is_empty() {
        return Err(refuse(code::MALFORMED));
    }
    let mut all: Tags = s.state(NAME)?.unwrap_or_default();
    all.tags.insert(tag);
    s.set_state(NAME, &all)?;
    Ok(Bytes::new())
}

fn put(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let Tag { tag } = input(raw)?;
    let mut all: Tags = s.state(NAME)?.unwrap_or_default();
    if !all.tags.remove(&tag) {
        return Err(refuse(code::ABSENT));
    }
    keep(s, &all)
}

fn set(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let all: Tags = input(raw)?;
    keep(s, &all)
}

fn keep(s: &mut Scope<'_, '_>, all: &Tags) -> Result<Bytes, Stop> {
    let gone = all.tags.is_empty();
    if gone {
        s.remove_object()?;
    } else {
        s.set_state(NAME, all)?;
    }
    Ok(encode(&gone))
}

fn list(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    Ok(encode(&s.state::<Tags>(NAME)?.unwrap_or_default()))
}
