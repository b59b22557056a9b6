//! The file format of qemu's disks, version 2 and 3: written as a stream whose length and tables are known before its
//! data, and read from a file that can be positioned.
//!
//! Written is version 3, with clusters of 64 KiB (2 MiB for images of more than 16 TiB), 16 bits of reference count, no
//! compression: header, L1 table, reference counts, L2 tables, data in rising order. What is planned and reads as zeros
//! is written as zeros, or passed over where the output can be.
//!
//! Read is what qemu-img writes by itself, with its compression by deflate or zstd. Refused: backing files, encryption,
//! data in another file, extended L2 entries, and images marked as corrupt. Internal snapshots are not looked at.
//! Nothing of a file is trusted: a wrong one gives an error, whatever it says.

use std::io::{Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, TryStreamExt};

use crate::diff::Range;
use crate::error::Error;
use crate::image::Image;
use crate::stream::{ABREAST, PIECE, runs};

const MAGIC: u32 = 0x5146_49fb;
const HEADER: usize = 104;
/// The reference count of this entry is one.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reads as zeros, whatever else is said.
const ZEROS: u64 = 1;
/// Where a table or a cluster lies.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
/// A table in memory is no longer: as qemu has it.
const MOST_L1: u64 = 32 << 20;

fn wrong(what: impl Into<String>) -> Error {
    Error::Stream(what.into())
}

/// Where everything of a file to be written lies.
#[derive(Clone, Debug)]
pub struct Plan {
    size: u64,
    bits: u32,
    /// In whole clusters, in order, apart from each other.
    ranges: Vec<Range>,
}

/// Counts of clusters.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    l1: u64,
    refcount_table: u64,
    refcount_blocks: u64,
    l2: u64,
    data: u64,
}

impl Parts {
    fn total(&self) -> u64 {
        1 + self.l1 + self.refcount_table + self.refcount_blocks + self.l2 + self.data
    }
}

impl Plan {
    /// For an image of that size, of which only these ranges, in order, hold anything.
    pub fn new(size: u64, ranges: &[Range]) -> Plan {
        let bits = if size > 16 << 40 { 21 } else { 16 };
        let cluster = 1u64 << bits;
        let mut whole: Vec<Range> = Vec::new();
        for range in ranges.iter().filter(|range| range.len > 0) {
            let offset = range.offset & !(cluster - 1);
            let end = (range.offset + range.len).next_multiple_of(cluster);
            match whole.last_mut() {
                Some(last) if last.offset + last.len >= offset => {
                    last.len = end.max(last.offset + last.len) - last.offset
                }
                _ => whole.push(Range { offset, len: end - offset }),
            }
        }
        Plan { size, bits, ranges: whole }
    }

    /// What is to follow the head: whole clusters, the last perhaps past the end of the image.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    fn cluster(&self) -> u64 {
        1 << self.bits
    }

    /// Bytes that one L2 table maps.
    fn reach(&self) -> u64 {
        self.cluster() / 8 * self.cluster()
    }

    /// The L2 tables that are needed, by their place in the L1 table.
    fn tables(&self) -> Vec<u64> {
        let mut tables: Vec<u64> = Vec::new();
        for range in &self.ranges {
            let (first, last) = (range.offset / self.reach(), (range.offset + range.len - 1) / self.reach());
            for table in first..=last {
                if tables.last() != Some(&table) {
                    tables.push(table);
                }
            }
        }
        tables
    }

    fn parts(&self) -> Parts {
        let cluster = self.cluster();
        let entries = self.size.div_ceil(self.reach());
        let mut parts = Parts {
            l1: (entries * 8).div_ceil(cluster).max(1),
            l2: self.tables().len() as u64,
            data: self.ranges.iter().map(|range| range.len).sum::<u64>() / cluster,
            ..Parts::default()
        };
        // The counts count themselves.
        loop {
            let blocks = parts.total().div_ceil(cluster / 2);
            let table = (blocks * 8).div_ceil(cluster);
            if (blocks, table) == (parts.refcount_blocks, parts.refcount_table) {
                return parts;
            }
            (parts.refcount_blocks, parts.refcount_table) = (blocks, table);
        }
    }

    /// Writes all that comes before the data.
    pub fn write_head(&self, into: &mut impl Write) -> Result<(), Error> {
        let (cluster, parts) = (self.cluster(), self.parts());
        let l1 = cluster;
        let refcount_table = l1 + parts.l1 * cluster;
        let refcount_blocks = refcount_table + parts.refcount_table * cluster;
        let l2 = refcount_blocks + parts.refcount_blocks * cluster;
        let data = l2 + parts.l2 * cluster;
        let entries = self.size.div_ceil(self.reach());
        if entries * 8 > MOST_L1 {
            return Err(wrong("the image is larger than qcow2 can be"));
        }

        let mut head = Vec::new();
        head.extend(MAGIC.to_be_bytes());
        head.extend(3u32.to_be_bytes());
        head.extend([0; 12]);
        head.extend(self.bits.to_be_bytes());
        head.extend(self.size.to_be_bytes());
        head.extend(0u32.to_be_bytes());
        head.extend(u32::try_from(entries).unwrap_or(u32::MAX).to_be_bytes());
        head.extend(l1.to_be_bytes());
        head.extend(refcount_table.to_be_bytes());
        head.extend(u32::try_from(parts.refcount_table).unwrap_or(u32::MAX).to_be_bytes());
        // No snapshots, no features.
        head.extend([0; 4 + 8 + 24]);
        head.extend(4u32.to_be_bytes());
        head.extend((HEADER as u32).to_be_bytes());
        head.resize(cluster as usize, 0);
        into.write_all(&head)?;

        let tables = self.tables();
        let mut table = vec![0; (parts.l1 * cluster) as usize];
        for (at, index) in tables.iter().enumerate() {
            put(&mut table, *index, COPIED | (l2 + at as u64 * cluster));
        }
        into.write_all(&table)?;

        let mut table = vec![0; (parts.refcount_table * cluster) as usize];
        for block in 0..parts.refcount_blocks {
            put(&mut table, block, refcount_blocks + block * cluster);
        }
        into.write_all(&table)?;
        let each = cluster / 2;
        for block in 0..parts.refcount_blocks {
            let used = parts.total().saturating_sub(block * each).min(each);
            let mut counts = [0u8, 1].repeat(used as usize);
            counts.resize(cluster as usize, 0);
            into.write_all(&counts)?;
        }

        let mut place = data;
        let mut ranges = self.ranges.iter().copied().peekable();
        for index in tables {
            let mut table = vec![0; cluster as usize];
            let end = (index + 1) * self.reach();
            while let Some(range) = ranges.peek_mut() {
                if range.offset >= end {
                    break;
                }
                let here = range.len.min(end - range.offset);
                let first = (range.offset - index * self.reach()) / cluster;
                for entry in 0..here / cluster {
                    put(&mut table, first + entry, COPIED | place);
                    place += cluster;
                }
                range.offset += here;
                range.len -= here;
                if range.len == 0 {
                    ranges.next();
                }
            }
            into.write_all(&table)?;
        }
        Ok(())
    }
}

/// Sets an entry of a table.
fn put(table: &mut [u8], index: u64, value: u64) {
    let at = index as usize * 8;
    if let Some(place) = table.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn entry(table: &[u8], index: u64) -> Option<u64> {
    let at = usize::try_from(index).ok()?.checked_mul(8)?;
    Some(u64::from_be_bytes(table.get(at..at + 8)?.try_into().ok()?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Deflate,
    Zstd,
}

/// A file that is read.
#[derive(Debug)]
pub struct Reader<F> {
    file: F,
    bits: u32,
    size: u64,
    version: u32,
    packing: Packing,
    l1: Vec<u8>,
    /// The L2 table at hand, and its place in the L1 table.
    l2: (u64, Vec<u8>),
    at: u64,
}

/// What a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    At(u64),
    Packed(u64, u64),
}

impl<F: Read + Seek> Reader<F> {
    /// Reads the head of a file.
    pub fn open(mut file: F) -> Result<Reader<F>, Error> {
        let mut head = [0u8; HEADER];
        let mut have = 0;
        while have < HEADER {
            match file.read(head.get_mut(have..).unwrap_or_default())? {
                0 => break,
                more => have += more,
            }
        }
        let word =
            |at: usize| u32::from_be_bytes(head.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]));
        let long =
            |at: usize| u64::from_be_bytes(head.get(at..at + 8).and_then(|b| b.try_into().ok()).unwrap_or([0; 8]));
        if have < 72 || word(0) != MAGIC {
            return Err(wrong("it is no qcow2 file"));
        }
        let version = word(4);
        if !(2..=3).contains(&version) || (version == 3 && have < HEADER) {
            return Err(wrong(format!("qcow2 of version {version}; this release reads 2 and 3")));
        }
        if long(8) != 0 {
            return Err(wrong("it has a backing file; make one without first: qemu-img convert -O qcow2 OLD NEW"));
        }
        let (bits, size) = (word(20), long(24));
        if !(9..=21).contains(&bits) || size > crate::create::LARGEST {
            return Err(wrong("its header says what no qcow2 file can be"));
        }
        if word(32) != 0 {
            return Err(wrong("it is encrypted"));
        }
        let features = if version == 3 { long(72) } else { 0 };
        let mut packing = Packing::Deflate;
        if features & 8 != 0 {
            // One byte behind the header of old.
            let mut kind = [0];
            file.seek(SeekFrom::Start(HEADER as u64))?;
            file.read_exact(&mut kind)?;
            packing = match kind {
                [0] => Packing::Deflate,
                [1] => Packing::Zstd,
                [other] => return Err(wrong(format!("it is compressed in the unknown way {other}"))),
            };
        }
        for (bit, what) in [(2, "is marked as corrupt: qemu-img check -r all"), (4, "keeps its data in another file")] {
            if features & bit != 0 {
                return Err(wrong(format!("it {what}")));
            }
        }
        if features & !0b1111 != 0 {
            return Err(wrong(format!("it has features that this release does not know ({features:#x})")));
        }
        let entries = u64::from(word(36));
        if entries * 8 > MOST_L1 {
            return Err(wrong("its first table is longer than any may be"));
        }
        // Each entry stands for as many clusters as a table of one cluster lists. Without this a few wrong bits of the size
        // were a walk over exbibytes of nothing.
        if entries < size.div_ceil(1 << (2 * bits - 3)) {
            return Err(wrong("its first table is too short for its size"));
        }
        let l1 = read_at(&mut file, long(40), entries * 8)?;
        Ok(Reader { file, bits, size, version, packing, l1, l2: (u64::MAX, Vec::new()), at: 0 })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn find(&mut self, cluster: u64) -> Result<Found, Error> {
        let per = self.bits - 3;
        let index = cluster >> per;
        if self.l2.0 != index {
            let place = entry(&self.l1, index).unwrap_or(0) & PLACE;
            let table = if place == 0 { Vec::new() } else { read_at(&mut self.file, place, 1 << self.bits)? };
            self.l2 = (index, table);
        }
        let found = entry(&self.l2.1, cluster & ((1 << per) - 1)).unwrap_or(0);
        if found & COMPRESSED != 0 {
            let split = 62 - (self.bits - 8);
            let place = found & ((1 << split) - 1);
            let sectors = ((found & (COMPRESSED - 1)) >> split) + 1;
            return Ok(Found::Packed(place, sectors * 512 - (place & 511)));
        }
        let place = found & PLACE;
        Ok(if place == 0 || (self.version > 2 && found & ZEROS != 0) { Found::Nothing } else { Found::At(place) })
    }

    /// The next bytes that are not known to be zeros, with where they belong, in rising order. None at the end.
    pub fn next_data(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let cluster = 1u64 << self.bits;
        while self.at < self.size {
            let from = self.at;
            let found = self.find(from >> self.bits)?;
            let rest = self.size - from;
            match found {
                // A table that is not there is passed over whole.
                Found::Nothing if self.l2.1.is_empty() => {
                    let reach = cluster << (self.bits - 3);
                    self.at = (from / reach + 1).saturating_mul(reach);
                }
                Found::Nothing => self.at = from + cluster,
                Found::Packed(place, len) => {
                    let packed = self.packed(place, len)?;
                    let len = cluster.min(rest) as usize;
                    self.at = from + cluster;
                    return Ok(Some((from, Bytes::from(packed).slice(..len))));
                }
                Found::At(place) => {
                    let mut len = cluster;
                    while len < PIECE && from + len < self.size {
                        match self.find((from + len) >> self.bits)? {
                            Found::At(next) if Some(next) == place.checked_add(len) => len += cluster,
                            _ => break,
                        }
                    }
                    let len = len.min(self.size - from);
                    let data = self.plain(place, len)?;
                    self.at = from + len.next_multiple_of(cluster);
                    return Ok(Some((from, data)));
                }
            }
        }
        Ok(None)
    }

    /// The last cluster of a file may be shorter than a cluster.
    fn plain(&mut self, place: u64, len: u64) -> Result<Bytes, Error> {
        self.file.seek(SeekFrom::Start(place))?;
        let mut data = Vec::new();
        self.file.by_ref().take(len).read_to_end(&mut data)?;
        if data.is_empty() {
            return Err(short());
        }
        data.resize(len as usize, 0);
        Ok(Bytes::from(data))
    }

    fn packed(&mut self, place: u64, len: u64) -> Result<Vec<u8>, Error> {
        self.file.seek(SeekFrom::Start(place))?;
        let mut packed = Vec::new();
        // Counted in sectors, of which the last may not be there.
        self.file.by_ref().take(len).read_to_end(&mut packed)?;
        let mut data = vec![0; 1 << self.bits];
        let done = match self.packing {
            Packing::Deflate => flate2::read::DeflateDecoder::new(&packed[..]).read_exact(&mut data),
            Packing::Zstd => zstd::Decoder::new(&packed[..]).and_then(|mut from| from.read_exact(&mut data)),
        };
        done.map_err(|error| wrong(format!("what is compressed at byte {place} cannot be read: {error}")))?;
        Ok(data)
    }
}

fn short() -> Error {
    wrong("it ends too early: it was cut short")
}

fn read_at(file: &mut (impl Read + Seek), place: u64, len: u64) -> Result<Vec<u8>, Error> {
    file.seek(SeekFrom::Start(place))?;
    let mut data = Vec::new();
    file.by_ref().take(len).read_to_end(&mut data)?;
    if data.len() as u64 == len { Ok(data) } else { Err(short()) }
}

impl Image {
    /// Writes this image as qcow2. `skip` passes over zeros where the output can be positioned.
    pub async fn export_qcow2(
        &self,
        into: &mut impl Write,
        mut skip: impl FnMut(&mut dyn Write, u64) -> std::io::Result<bool>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let plan = Plan::new(self.size(), &self.changed_since(None).await?);
        plan.write_head(into)?;
        let total: u64 = plan.ranges().iter().map(|range| range.len).sum();
        let within = |range: &Range| Range { offset: range.offset, len: range.len.min(self.size() - range.offset) };
        let mut done = 0;
        let mut reads = std::pin::pin!(self.reads(plan.ranges().iter().map(within).collect()));
        while let Some((_, data)) = reads.try_next().await? {
            for (at, len, zero) in runs(&data) {
                if !(zero && skip(into, len as u64)?) {
                    into.write_all(data.get(at..at + len).unwrap_or_default())?;
                }
            }
            done += data.len() as u64;
            progress(done, total);
        }
        // Whole clusters; this also makes the file as long as it is to be.
        let rest = vec![0; usize::try_from(total - done).unwrap_or(0)];
        into.write_all(&rest)?;
        into.flush()?;
        Ok(())
    }

    /// Fills this image, which must be new and open for writing, with the disk of a qcow2 file.
    pub async fn import_qcow2(
        &self,
        from: &mut Reader<impl Read + Seek>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let mut writes = FuturesUnordered::new();
        while let Some((offset, data)) = from.next_data()? {
            progress(offset + data.len() as u64, from.size());
            if data.iter().any(|byte| *byte != 0) {
                writes.push(self.write(offset, data));
            }
            if writes.len() >= ABREAST {
                writes.try_next().await?;
            }
        }
        while writes.try_next().await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
#[path = "qcow2_test.rs"]
mod tests;
