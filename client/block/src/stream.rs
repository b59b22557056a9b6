//! Images as streams of bytes: raw, and a stream of its own for whole images and for differences.
//!
//! The stream of its own (`docs/formats/image-stream.md`): a head, records of data and of zeros in rising order, an end
//! that says how many records there were. Head, records and end carry a checksum each: a stream that was cut short or
//! damaged is refused where it is damaged, and a difference is applied only to an image that has the snapshot it begins
//! with. Numbers are little-endian.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};

use crate::diff::Range;
use crate::error::Error;
use crate::image::Image;

/// Begins a stream.
pub const MAGIC: &[u8; 8] = b"NACREIMG";
/// The first version.
pub const VERSION: u16 = 1;
/// The longest piece of data in one record.
pub const PIECE: u64 = 1 << 20;
/// Zeros shorter than this are not worth a record of their own.
const GRAIN: usize = 4096;
/// Pieces under way.
pub(crate) const ABREAST: usize = 8;

const DATA: u8 = 1;
const ZERO: u8 = 2;
const END: u8 = 3;

/// What a stream begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The image's size after it was applied.
    pub size: u64,
    /// Its objects have 2 to the power of this many bytes.
    pub order: u8,
    /// The snapshot it must be applied on; empty: it is a whole image.
    pub from: String,
    /// The snapshot it leads to; empty: to none.
    pub to: String,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes.
    Data(u64, Bytes),
    /// Zeros.
    Zero(u64, u64),
    /// There is no more; so many records came before.
    End(u64),
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn damaged(what: &str) -> Error {
    Error::Stream(format!("{what} fails its checksum: it was damaged on its way"))
}

fn take<const N: usize>(from: &mut impl Read, into: &mut Vec<u8>) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Stream("it ends too early: it was cut short".into()),
        _ => Error::Io(error),
    })?;
    into.extend_from_slice(&bytes);
    Ok(bytes)
}

fn name(from: &mut impl Read, into: &mut Vec<u8>) -> Result<String, Error> {
    let len = usize::from(u16::from_le_bytes(take(from, into)?));
    if len > 4096 {
        return Err(Error::Stream("it names a snapshot that no image can have".into()));
    }
    let mut text = Vec::with_capacity(len);
    for _ in 0..len {
        text.extend_from_slice(&take::<1>(from, into)?);
    }
    String::from_utf8(text).map_err(|_| Error::Stream("it names a snapshot in no known letters".into()))
}

fn checked(from: &mut impl Read, seen: &[u8], what: &str) -> Result<(), Error> {
    let sum = u32::from_le_bytes(take(from, &mut Vec::new())?);
    if sum == crc32fast::hash(seen) { Ok(()) } else { Err(damaged(what)) }
}

impl Head {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.push(self.order);
        for text in [&self.from, &self.to] {
            let text = text.as_bytes().get(..4096).unwrap_or(text.as_bytes());
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
            out.extend_from_slice(text);
        }
        sealed(out)
    }

    /// Reads it.
    pub fn read(from: &mut impl Read) -> Result<Head, Error> {
        let mut seen = Vec::new();
        if &take::<8>(from, &mut seen)? != MAGIC {
            return Err(Error::Stream("it does not begin as a stream of an image does".into()));
        }
        let version = u16::from_le_bytes(take(from, &mut seen)?);
        if version != VERSION {
            let text = format!("it is of version {version}; this release reads version {VERSION}");
            return Err(Error::Stream(text));
        }
        let size = u64::from_le_bytes(take(from, &mut seen)?);
        let [order] = take(from, &mut seen)?;
        let (older, newer) = (name(from, &mut seen)?, name(from, &mut seen)?);
        checked(from, &seen, "its head")?;
        Ok(Head { size, order, from: older, to: newer })
    }
}

impl Record {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Record::Data(offset, data) => {
                out.push(DATA);
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&(data.len() as u64).to_le_bytes());
                out.extend_from_slice(data);
            }
            Record::Zero(offset, len) => {
                out.push(ZERO);
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&len.to_le_bytes());
            }
            Record::End(count) => {
                out.push(END);
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&0u64.to_le_bytes());
            }
        }
        sealed(out)
    }

    /// Reads one.
    pub fn read(from: &mut impl Read) -> Result<Record, Error> {
        let mut seen = Vec::new();
        let [kind] = take(from, &mut seen)?;
        let first = u64::from_le_bytes(take(from, &mut seen)?);
        let len = u64::from_le_bytes(take(from, &mut seen)?);
        let record = match kind {
            DATA if len <= PIECE => {
                let begin = seen.len();
                let mut rest = from.by_ref().take(len);
                if rest.read_to_end(&mut seen)? as u64 != len {
                    return Err(Error::Stream("it ends too early: it was cut short".into()));
                }
                Record::Data(first, Bytes::copy_from_slice(seen.get(begin..).unwrap_or_default()))
            }
            DATA => return Err(Error::Stream(format!("a piece of {len} bytes is longer than any may be"))),
            ZERO => Record::Zero(first, len),
            END => Record::End(first),
            other => return Err(Error::Stream(format!("it has a record of the unknown kind {other}"))),
        };
        checked(from, &seen, &format!("the record at byte {first} of the image"))?;
        Ok(record)
    }
}

/// Runs of zeros and of others in a piece, in grains.
pub(crate) fn runs(data: &[u8]) -> Vec<(usize, usize, bool)> {
    let mut runs: Vec<(usize, usize, bool)> = Vec::new();
    for (at, grain) in data.chunks(GRAIN).enumerate() {
        let zero = grain.iter().all(|byte| *byte == 0);
        match runs.last_mut() {
            Some(last) if last.2 == zero => last.1 += grain.len(),
            _ => runs.push((at * GRAIN, grain.len(), zero)),
        }
    }
    runs
}

impl Image {
    pub(crate) fn reads(
        &self,
        ranges: Vec<Range>,
    ) -> impl futures_util::Stream<Item = Result<(u64, Bytes), Error>> + '_ {
        let pieces = ranges.into_iter().flat_map(|range| {
            let end = range.offset + range.len;
            let first = range.offset / PIECE;
            (first..end.div_ceil(PIECE)).map(move |index| {
                let from = (index * PIECE).max(range.offset);
                (from, ((index + 1) * PIECE).min(end) - from)
            })
        });
        let reads = pieces.map(move |(offset, len)| async move { Ok((offset, self.read(offset, len).await?)) });
        stream::iter(reads).buffered(ABREAST)
    }

    /// Writes this image (or snapshot) as a stream: all of it, or what differs from an older snapshot. `older` is that
    /// snapshot with its name, `to` the name of this one.
    pub async fn export(
        &self,
        older: Option<(&Image, &str)>,
        to: &str,
        into: &mut impl Write,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let ranges = self.changed_since(older.map(|(image, _)| image)).await?;
        let from = older.map(|(_, name)| name.to_owned()).unwrap_or_default();
        let order = self.view().held.image.order;
        into.write_all(&Head { size: self.size(), order, from, to: to.to_owned() }.encode())?;
        let total: u64 = ranges.iter().map(|range| range.len).sum();
        let (mut done, mut count) = (0, 0);
        let mut put = |record: Record| {
            count += 1;
            into.write_all(&record.encode())
        };
        let mut reads = std::pin::pin!(self.reads(ranges));
        while let Some((offset, data)) = reads.try_next().await? {
            for (at, len, zero) in runs(&data) {
                let from = offset + at as u64;
                match zero {
                    // In a whole image what is not said is zeros.
                    true if older.is_none() => {}
                    true => put(Record::Zero(from, len as u64))?,
                    false => put(Record::Data(from, data.slice(at..at + len)))?,
                }
            }
            done += data.len() as u64;
            progress(done, total);
        }
        into.write_all(&Record::End(count).encode())?;
        into.flush()?;
        Ok(())
    }

    /// Writes this image as plain bytes. `skip` passes over zeros where the output can be positioned.
    pub async fn export_raw(
        &self,
        into: &mut impl Write,
        mut skip: impl FnMut(&mut dyn Write, u64) -> std::io::Result<bool>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let size = self.size();
        let mut reads = std::pin::pin!(self.reads(vec![Range { offset: 0, len: size }]));
        while let Some((offset, data)) = reads.try_next().await? {
            for (at, len, zero) in runs(&data) {
                if !(zero && skip(into, len as u64)?) {
                    into.write_all(data.get(at..at + len).unwrap_or_default())?;
                }
            }
            progress(offset + data.len() as u64, size);
        }
        into.flush()?;
        Ok(())
    }

    /// Fills this image, which must be new and open for writing, with plain bytes up to its end.
    pub async fn import_raw(&self, from: &mut impl Read, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        let size = self.size();
        let mut writes = FuturesUnordered::new();
        let mut offset = 0;
        while offset < size {
            let mut piece = Vec::new();
            from.by_ref().take(PIECE.min(size - offset)).read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            let len = piece.len() as u64;
            if piece.iter().any(|byte| *byte != 0) {
                writes.push(self.write(offset, Bytes::from(piece)));
            }
            if writes.len() >= ABREAST {
                writes.try_next().await?;
            }
            offset += len;
            progress(offset, size);
        }
        while writes.try_next().await?.is_some() {}
        Ok(())
    }

    /// Applies the records that follow the head of a stream. The image must be open for writing and of the head's size;
    /// for a difference it must be as its snapshot `from` was.
    pub async fn apply(&self, from: &mut impl Read, mut progress: impl FnMut(u64)) -> Result<(), Error> {
        let (mut count, mut bytes) = (0, 0);
        let mut writes = FuturesUnordered::new();
        loop {
            let (offset, len) = match Record::read(from)? {
                Record::End(said) if said == count => break,
                Record::End(said) => {
                    return Err(Error::Stream(format!("it should have {said} records and has {count}")));
                }
                Record::Data(offset, data) => {
                    let len = data.len() as u64;
                    writes.push(futures_util::future::Either::Left(self.write(offset, data)));
                    (offset, len)
                }
                Record::Zero(offset, len) => {
                    writes.push(futures_util::future::Either::Right(self.zero(offset, len)));
                    (offset, len)
                }
            };
            if offset.checked_add(len).is_none_or(|end| end > self.size()) {
                return Err(Error::Stream(format!("a record at byte {offset} lies past the end of the image")));
            }
            if writes.len() >= ABREAST {
                writes.try_next().await?;
            }
            count += 1;
            bytes += len;
            progress(bytes);
        }
        while writes.try_next().await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
