//! Server-side classes: methods that run where the object is, inside the vector, so that reading, deciding and writing
//! are one step. [`CLASSES`] is the registry; a class is one file in `class/`, which documents its inputs and outputs.
//!
//! Contract of a method:
//! - it sees and changes one object through [`Scope`], and nothing else; all it may know is the object, its input, who
//!   asks and the primary's wall clock. Only its effect is replicated, so it may use that clock;
//! - it is run again from its start when something must be read first: it keeps nothing between runs;
//! - it is bounded: input, output, and what it touches ([`INPUT_MAX`], [`OUTPUT_MAX`], [`STEPS_MAX`]);
//! - it refuses with one of [`code`]; a refusal undoes the whole vector.
//!
//! Inputs and outputs are a wire format: one byte of version (1), then the fields of the type in the codec of
//! [`crate::format`] (little-endian numbers, `u32` lengths). `fixtures/pg/class.txt` holds bytes of each, read by a test.

pub mod image;
pub mod lock;
pub mod log;
pub mod numops;
pub mod queue;
pub mod refcount;
pub mod timeindex;
pub mod version;

use bytes::Bytes;

use crate::exec::{Stop, Workspace};
pub use crate::format::Codec;
use crate::format::{Pen, Reader};
use crate::object::CLASS;
use crate::op::OpError;

/// The longest input, bytes.
pub const INPUT_MAX: usize = 256 << 10;
/// The longest output, bytes. Of a writing method it is kept in the log for retries: [`KEPT_MAX`].
pub const OUTPUT_MAX: usize = 1 << 20;
/// The longest output of a method that writes.
pub const KEPT_MAX: usize = 64 << 10;
/// Entries and values one call may touch.
pub const STEPS_MAX: u32 = 10_000;
/// What one value kept as an xattr may take.
pub const STATE_MAX: usize = 64 << 10;

/// Why a class refuses. The same numbers for all classes.
pub mod code {
    /// The input is not what the method takes.
    pub const MALFORMED: u32 = 1;
    /// The call would touch or answer more than one call may, or keep more than an object may.
    pub const LIMIT: u32 = 2;
    /// What is named is not there.
    pub const ABSENT: u32 = 3;
    /// It is there already.
    pub const EXISTS: u32 = 4;
    /// Another holds it.
    pub const BUSY: u32 = 5;
    /// The holder's identity was fenced: its hold was broken.
    pub const FENCED: u32 = 6;
    /// A condition does not hold.
    pub const CONDITION: u32 = 7;
    /// There is no room left in it.
    pub const FULL: u32 = 8;
    /// What is stored, or the result, is not a number of 64 bits.
    pub const NUMBER: u32 = 9;
    /// What the class stored here earlier cannot be read.
    pub const STORED: u32 = 10;
}

/// A method.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// It may change the object; if not, its changes are refused.
    pub writes: bool,
    /// What it does.
    pub run: fn(&mut Scope<'_, '_>, &[u8]) -> Result<Bytes, Stop>,
}

/// A class.
pub trait Class: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it can do.
    fn methods(&self) -> &'static [Method];
}

/// All classes this release knows.
pub const CLASSES: &[&dyn Class] = &[
    &image::ImageClass,
    &lock::LockClass,
    &log::LogClass,
    &numops::NumOps,
    &queue::QueueClass,
    &refcount::RefCount,
    &timeindex::TimeIndex,
    &version::VersionClass,
];

fn find(class: &str, method: &str) -> Option<(&'static str, &'static Method)> {
    let class = CLASSES.iter().find(|c| c.name() == class)?;
    class.methods().iter().find(|m| m.name == method).map(|m| (class.name(), m))
}

/// Does this method change objects. One that is not known does not.
pub fn writes(class: &str, method: &str) -> bool {
    find(class, method).is_some_and(|(_, m)| m.writes)
}

/// Calls a method.
pub(crate) fn call(ws: &mut Workspace<'_>, class: &str, method: &str, input: &[u8]) -> Result<Bytes, Stop> {
    let Some((class, method)) = find(class, method) else {
        return Err(OpError::NoClass { at: 0 }.into());
    };
    if input.len() > INPUT_MAX {
        return Err(refuse(code::LIMIT));
    }
    let mut scope = Scope { ws, class, writes: method.writes, steps: 0 };
    let out = (method.run)(&mut scope, input)?;
    if out.len() > if method.writes { KEPT_MAX } else { OUTPUT_MAX } {
        return Err(refuse(code::LIMIT));
    }
    Ok(out)
}

/// A refusal.
pub fn refuse(code: u32) -> Stop {
    Stop::Refuse(OpError::Class { at: 0, code })
}

const VERSION: u8 = 1;

/// Bytes of an input or output.
pub fn encode<T: Codec>(value: &T) -> Bytes {
    let mut out = Pen::new();
    out.push(VERSION);
    value.put(&mut out);
    out.into_bytes()
}

/// Reads an input or output; none if it is not one.
pub fn decode<T: Codec>(bytes: &[u8]) -> Option<T> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    let mut r = Reader::new(rest);
    let value = T::get(&mut r).ok()?;
    r.finish().ok()?;
    Some(value)
}

/// Reads an input, or refuses it.
pub(crate) fn input<T: Codec>(bytes: &[u8]) -> Result<T, Stop> {
    decode(bytes).ok_or_else(|| refuse(code::MALFORMED))
}

/// A page of a listing: so many at most, after a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The mark of the last one had; empty: from the beginning.
    pub after: Bytes,
    /// At most so many.
    pub max: u32,
}
crate::codec_struct!(Page { after, max });

/// What a method is given: the object, within bounds.
pub struct Scope<'w, 'a> {
    ws: &'w mut Workspace<'a>,
    class: &'static str,
    writes: bool,
    steps: u32,
}

impl Scope<'_, '_> {
    fn step(&mut self, n: usize) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if self.steps > STEPS_MAX { Err(refuse(code::LIMIT)) } else { Ok(()) }
    }

    fn change(&mut self, n: usize) -> Result<(), Stop> {
        if !self.writes {
            return Err(OpError::Invalid { at: 0 }.into());
        }
        self.step(n)
    }

    fn name(&self, name: &[u8]) -> Bytes {
        let mut out = vec![CLASS];
        out.extend_from_slice(self.class.as_bytes());
        out.push(b'.');
        out.extend_from_slice(name);
        Bytes::from(out)
    }

    /// Who asks.
    pub fn session(&self) -> nacre_proto::ids::SessionId {
        self.ws.session()
    }

    /// The primary's wall clock.
    pub fn wall_ms(&self) -> u64 {
        self.ws.wall_ms()
    }

    /// Refuses if there is no object.
    pub fn must_exist(&self) -> Result<(), Stop> {
        if self.ws.exists() { Ok(()) } else { Err(OpError::NotFound { at: 0 }.into()) }
    }

    /// Removes the object.
    pub fn remove_object(&mut self) -> Result<(), Stop> {
        self.change(1)?;
        self.ws.remove();
        Ok(())
    }

    /// What this class keeps under a name.
    pub fn state<T: Codec>(&mut self, name: &[u8]) -> Result<Option<T>, Stop> {
        self.step(1)?;
        if !self.ws.exists() {
            return Ok(None);
        }
        let Some(raw) = self.ws.stored_xattr(&self.name(name))? else { return Ok(None) };
        decode(&raw).map(Some).ok_or_else(|| refuse(code::STORED))
    }

    /// Names under which this class keeps something.
    pub fn states(&mut self) -> Result<Vec<Bytes>, Stop> {
        let list = self.ws.xattrs_under(&self.name(b""))?;
        self.step(list.len())?;
        Ok(list.into_iter().map(|(k, _)| k).collect())
    }

    /// Keeps something; the object is made if there is none.
    pub fn set_state<T: Codec>(&mut self, name: &[u8], value: &T) -> Result<(), Stop> {
        self.change(1)?;
        let raw = encode(value);
        if raw.len() > STATE_MAX {
            return Err(refuse(code::LIMIT));
        }
        self.ws.set_stored_xattr(self.name(name), Some(raw));
        Ok(())
    }

    /// One omap value.
    pub fn omap_get(&mut self, key: &Bytes) -> Result<Option<Bytes>, Stop> {
        self.step(1)?;
        if self.ws.exists() { self.ws.omap_get(key) } else { Ok(None) }
    }

    /// Omap entries under a prefix after a key, and whether more follow.
    pub fn omap_range(
        &mut self,
        after: Option<&Bytes>,
        prefix: &[u8],
        max: u32,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), Stop> {
        if !self.ws.exists() {
            return Ok((Vec::new(), false));
        }
        let (list, more) = self.ws.omap_range(after, prefix, max.min(STEPS_MAX))?;
        self.step(list.len())?;
        Ok((list, more))
    }

    /// Sets omap entries.
    pub fn omap_set(&mut self, entries: Vec<(Bytes, Bytes)>) -> Result<(), Stop> {
        self.change(entries.len())?;
        self.ws.omap_set(entries);
        Ok(())
    }

    /// Removes omap entries in `[from, to)`.
    pub fn omap_remove_range(&mut self, from: Bytes, to: Bytes) -> Result<(), Stop> {
        self.change(1)?;
        self.ws.omap_remove_range(from, Some(to));
        Ok(())
    }
}

/// A key that sorts by a number, under the prefix of a class.
pub(crate) fn numbered(prefix: &[u8], n: u64) -> Bytes {
    let mut out = prefix.to_vec();
    out.extend_from_slice(&n.to_be_bytes());
    Bytes::from(out)
}

/// The number of such a key.
pub(crate) fn number_of(prefix: &[u8], key: &[u8]) -> Option<u64> {
    let rest = key.strip_prefix(prefix)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*rest))
}

#[cfg(test)]
#[path = "class_test.rs"]
mod tests;
