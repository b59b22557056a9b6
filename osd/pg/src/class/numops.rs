//! Class `numops`: arithmetic on whole numbers kept as decimal text in the object's omap, where users may read them.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `add` | [`Change`] | `i64`: the new value |
//! | `mul` | [`Change`] | `i64`: the new value |
//!
//! An absent value is 0. A value that is no number, or a result beyond 64 bits, is refused.

use bytes::Bytes;

use super::{Class, Method, Scope, code, encode, input, refuse};
use crate::codec_struct;
use crate::exec::Stop;

/// Input of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The omap key.
    pub key: Bytes,
    /// What to add, or to multiply by.
    pub by: i64,
}
codec_struct!(Change { key, by });

/// The class.
pub struct NumOps;

impl Class for NumOps {
    fn name(&self) -> &'static str {
        "numops"
    }

    fn methods(&self) -> &'static [Method] {
        &[Method { name: "add", writes: true, run: add }, Method { name: "mul", writes: true, run: mul }]
    }
}

fn add(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    change(s, raw, i64::checked_add)
}

fn mul(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    change(s, raw, i64::checked_mul)
}

fn change(s: &mut Scope<'_, '_>, raw: &[u8], f: fn(i64, i64) -> Option<i64>) -> Result<Bytes, Stop> {
    let Change { key, by } = input(raw)?;
    if key.is_empty() {
        return Err(refuse(code::MALFORMED));
    }
    let old = match s.omap_get(&key)? {
        None => 0,
        Some(text) => {
            std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok()).ok_or_else(|| refuse(code::NUMBER))?
        }
    };
    let new = f(old, by).ok_or_else(|| refuse(code::NUMBER))?;
    s.omap_set(vec![(key, Bytes::from(new.to_string()))])?;
    Ok(encode(&new))
}
