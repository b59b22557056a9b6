//! Bytes of what a placement group keeps in its store: a small positional codec and sealed records (magic, version,
//! checksum). It knows bytes only; each type says its own fields beside itself.
//!
//! What travels is written with the same codec, but need not be copied for it: a payload of [`APART`] bytes and more may
//! stand beside the run of bytes, which then holds its length alone, marked by the highest bit. Records never do that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SessionId, SnapId, Version};

use crate::io::{Duration, Time};

/// Why stored bytes were not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the field needs.
    #[error("record ends in the middle of a field; it was cut short or is not what it claims to be")]
    Short,
    /// Bytes are left over.
    #[error("record is longer than its fields by {0} bytes")]
    Long(usize),
    /// Not the kind of record expected.
    #[error("record has magic {found:#06x}, expected {expected:#06x}")]
    Magic { expected: u16, found: u16 },
    /// Written by a newer release.
    #[error("record has version {found}; this release reads up to {known}. Upgrade this osd")]
    TooNew { known: u8, found: u8 },
    /// Said by an older release, in words that are no longer understood.
    #[error("message has version {found}; this release understands {known}. Upgrade whoever sent it")]
    TooOld { known: u8, found: u8 },
    /// The checksum does not match.
    #[error("record fails its checksum; the copy on this osd is damaged")]
    Checksum,
    /// Entries of a log whose versions do not rise.
    #[error("entries of the log are not in order; the copy on this osd is damaged")]
    Order,
    /// A tag names no variant.
    #[error("record holds the unknown tag {0}")]
    Tag(u8),
}

/// Payloads of this size and more stand beside the run of bytes, where that is wanted. Below it a copy is cheaper.
pub const APART: usize = 1024;
/// In a payload's length: it stands beside.
const BESIDE: u32 = 1 << 31;

/// What values are written into: a run of bytes, and payloads beside it.
#[derive(Debug, Default)]
pub struct Pen {
    bytes: Vec<u8>,
    /// In the order of their lengths; none if all goes into the run.
    beside: Option<Vec<Bytes>>,
}

impl Pen {
    /// Everything goes into one run of bytes.
    pub fn new() -> Pen {
        Pen { bytes: Vec::with_capacity(256), beside: None }
    }

    /// Large payloads go beside it.
    pub fn sparing() -> Pen {
        Pen { beside: Some(Vec::new()), ..Pen::new() }
    }

    /// Appends a byte.
    pub fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The run, and what stands beside it.
    pub fn done(self) -> (Vec<u8>, Vec<Bytes>) {
        (self.bytes, self.beside.unwrap_or_default())
    }

    /// The run of a pen that puts nothing beside.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    fn len(&mut self, n: usize) {
        // Nothing the core keeps comes near 2 GiB; a longer one is a bug that must not be written.
        assert!(n < BESIDE as usize, "record of {n} elements");
        self.extend(&(n as u32).to_le_bytes());
    }

    fn payload(&mut self, bytes: &Bytes) {
        match &mut self.beside {
            Some(beside) if bytes.len() >= APART => {
                assert!(bytes.len() < BESIDE as usize, "payload of {} bytes", bytes.len());
                beside.push(bytes.clone());
                self.extend(&(bytes.len() as u32 | BESIDE).to_le_bytes());
            }
            _ => {
                self.len(bytes.len());
                self.extend(bytes);
            }
        }
    }
}

/// A cursor over bytes being decoded. Lengths are checked before anything is allocated.
pub struct Reader<'a> {
    buf: &'a [u8],
    /// The buffer that `buf` lies in, if payloads may share it.
    whole: Option<&'a Bytes>,
    /// Payloads that stand beside the run, one behind the other, as far as they are not read yet.
    beside: Bytes,
}

impl<'a> Reader<'a> {
    /// Over all of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Reader { buf, whole: None, beside: Bytes::new() }
    }

    /// Over all of `whole`; payloads that are read keep it alive instead of being copied.
    pub fn shared(whole: &'a Bytes) -> Self {
        Reader { buf: whole, whole: Some(whole), beside: Bytes::new() }
    }

    /// Over a run and the payloads beside it, which are kept alive instead of being copied.
    pub fn beside(run: &'a [u8], payloads: Bytes) -> Self {
        Reader { buf: run, whole: None, beside: payloads }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.buf.split_at_checked(n).ok_or(FormatError::Short)?;
        self.buf = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A count of elements, each of at least one byte: never more than the bytes left.
    fn count(&mut self) -> Result<usize, FormatError> {
        let n = u32::get(self)? as usize;
        if n > self.buf.len() { Err(FormatError::Short) } else { Ok(n) }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), FormatError> {
        match self.buf.len() + self.beside.len() {
            0 => Ok(()),
            left => Err(FormatError::Long(left)),
        }
    }

    fn payload(&mut self) -> Result<Bytes, FormatError> {
        let len = u32::get(self)?;
        if len & BESIDE != 0 {
            let len = (len & !BESIDE) as usize;
            return if len > self.beside.len() { Err(FormatError::Short) } else { Ok(self.beside.split_to(len)) };
        }
        let bytes = self.take(len as usize)?;
        Ok(match self.whole {
            // A few bytes are cheaper to copy than the whole frame is to keep.
            Some(whole) if bytes.len() > 256 => whole.slice_ref(bytes),
            _ => Bytes::copy_from_slice(bytes),
        })
    }
}

/// A value with one byte form.
pub trait Codec: Sized {
    /// Appends the form.
    fn put(&self, out: &mut Pen);
    /// Reads it back.
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Codec for $t {
            fn put(&self, out: &mut Pen) {
                out.extend(&self.to_le_bytes());
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
                Ok(<$t>::from_le_bytes(r.array()?))
            }
        }
    )*};
}
numbers!(u8, u32, u64, i64);

impl<T: Codec> Codec for std::sync::Arc<T> {
    fn put(&self, out: &mut Pen) {
        T::put(self, out);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        T::get(r).map(Self::new)
    }
}

impl<T: Codec> Codec for Box<T> {
    fn put(&self, out: &mut Pen) {
        T::put(self, out);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        T::get(r).map(Box::new)
    }
}

impl Codec for String {
    fn put(&self, out: &mut Pen) {
        out.len(self.len());
        out.extend(self.as_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let n = r.count()?;
        Ok(String::from_utf8_lossy(r.take(n)?).into_owned())
    }
}

macro_rules! newtypes {
    ($($t:ident),*) => {$(
        impl Codec for $t {
            fn put(&self, out: &mut Pen) {
                self.0.put(out);
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
                Ok($t(Codec::get(r)?))
            }
        }
    )*};
}
newtypes!(Epoch, OsdId, PoolId, SessionId, SnapId, Time, Duration);

/// Implements [`Codec`] for a struct by its fields in order.
#[macro_export]
macro_rules! codec_struct {
    ($t:ident { $($f:ident),* $(,)? }) => {
        impl $crate::format::Codec for $t {
            fn put(&self, out: &mut $crate::format::Pen) {
                $( $crate::format::Codec::put(&self.$f, out); )*
            }
            fn get(r: &mut $crate::format::Reader<'_>) -> Result<Self, $crate::format::FormatError> {
                $( let $f = $crate::format::Codec::get(r)?; )*
                Ok($t { $($f),* })
            }
        }
    };
}

/// Implements [`Codec`] for an enum: `tag => Variant { field: binding, ... }`; tuple fields are named `0`, `1`.
#[macro_export]
macro_rules! codec_enum {
    ($t:ident { $( $tag:literal => $v:ident { $($f:tt : $b:ident),* } ),* $(,)? }) => {
        impl $crate::format::Codec for $t {
            fn put(&self, out: &mut $crate::format::Pen) {
                match self { $(
                    $t::$v { $($f: $b),* } => {
                        out.push($tag);
                        $( $crate::format::Codec::put($b, out); )*
                    }
                )* }
            }
            fn get(r: &mut $crate::format::Reader<'_>) -> Result<Self, $crate::format::FormatError> {
                match <u8 as $crate::format::Codec>::get(r)? {
                    $( $tag => {
                        $( let $b = $crate::format::Codec::get(r)?; )*
                        Ok($t::$v { $($f: $b),* })
                    } )*
                    other => Err($crate::format::FormatError::Tag(other)),
                }
            }
        }
    };
}

codec_struct!(Version { epoch, counter });
codec_struct!(PgId { pool, seed });
codec_struct!(ObjectId { pool, hash, namespace, name, snap });

impl Codec for bool {
    fn put(&self, out: &mut Pen) {
        out.push(u8::from(*self));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        match u8::get(r)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(FormatError::Tag(other)),
        }
    }
}

impl Codec for Bytes {
    fn put(&self, out: &mut Pen) {
        out.payload(self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        r.payload()
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn put(&self, out: &mut Pen) {
        out.len(self.len());
        self.iter().for_each(|x| x.put(out));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let n = r.count()?;
        (0..n).map(|_| T::get(r)).collect()
    }
}

impl<T: Codec + Ord> Codec for BTreeSet<T> {
    fn put(&self, out: &mut Pen) {
        out.len(self.len());
        self.iter().for_each(|x| x.put(out));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let n = r.count()?;
        (0..n).map(|_| T::get(r)).collect()
    }
}

impl<K: Codec + Ord, V: Codec> Codec for BTreeMap<K, V> {
    fn put(&self, out: &mut Pen) {
        out.len(self.len());
        for (k, v) in self {
            k.put(out);
            v.put(out);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let n = r.count()?;
        (0..n).map(|_| Ok((K::get(r)?, V::get(r)?))).collect()
    }
}

impl<T: Codec> Codec for Option<T> {
    fn put(&self, out: &mut Pen) {
        match self {
            None => out.push(0),
            Some(x) => {
                out.push(1);
                x.put(out);
            }
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        match u8::get(r)? {
            0 => Ok(None),
            1 => Ok(Some(T::get(r)?)),
            other => Err(FormatError::Tag(other)),
        }
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn put(&self, out: &mut Pen) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok((A::get(r)?, B::get(r)?))
    }
}

/// Kinds of sealed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What a replica knows of itself.
    Info = 0x4e01,
    /// Past intervals.
    Intervals = 0x4e02,
    /// One entry of the log.
    LogEntry = 0x4e03,
    /// One missing object.
    Missing = 0x4e04,
    /// One remembered reply.
    Dup = 0x4e05,
    /// An object's own metadata.
    Object = 0x4e06,
    /// The unfinished copy of an object.
    Temp = 0x4e07,
    /// The end of the trimmed part of the log.
    Tail = 0x4e08,
    /// The head of a block image.
    Image = 0x4e09,
    /// A snapshot of a block image.
    ImageSnap = 0x4e0a,
}

/// Format version 1: the first.
const VERSION: u8 = 1;
const HEAD: usize = 7;

/// Wraps a value: magic, version, checksum of the body, body.
pub fn seal<T: Codec>(kind: Kind, value: &T) -> Bytes {
    let mut out = Pen::new();
    write_sealed(kind, value, &mut out);
    out.into_bytes()
}

/// As [`seal`], by way of a buffer that is used again and again.
pub(crate) fn seal_with<T: Codec>(pen: &mut Pen, kind: Kind, value: &T) -> Bytes {
    pen.bytes.clear();
    write_sealed(kind, value, pen);
    Bytes::copy_from_slice(&pen.bytes)
}

fn write_sealed<T: Codec>(kind: Kind, value: &T, out: &mut Pen) {
    out.extend(&(kind as u16).to_le_bytes());
    out.push(VERSION);
    out.extend(&[0; 4]);
    value.put(out);
    let sum = crc32fast::hash(&out.bytes[HEAD..]).to_le_bytes();
    out.bytes[3..HEAD].copy_from_slice(&sum);
}

/// Unwraps what [`seal`] made.
pub fn open<T: Codec>(kind: Kind, bytes: &[u8]) -> Result<T, FormatError> {
    let mut r = Reader::new(bytes);
    let found = u16::from_le_bytes(r.array()?);
    if found != kind as u16 {
        return Err(FormatError::Magic { expected: kind as u16, found });
    }
    let version = u8::get(&mut r)?;
    if version != VERSION {
        return Err(FormatError::TooNew { known: VERSION, found: version });
    }
    let sum = u32::get(&mut r)?;
    if crc32fast::hash(r.buf) != sum {
        return Err(FormatError::Checksum);
    }
    let value = T::get(&mut r)?;
    r.finish()?;
    Ok(value)
}
