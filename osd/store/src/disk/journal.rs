//! The journal: a ring of groups in a file that was written once from end to end before its first use.
//!
//! A group is what one write and one flush make durable: a header of 64 bytes and whole records, from a sector's start.
//! The next group begins at the device's next sector, of 512 or 4096 bytes, or at the ring's start if it does not fit
//! before the end. It knows nothing of what records mean.
//!
//! Invariants
//! 1. Group `n + 1` is written only after group `n` is durable. So a damaged group with a whole one behind it is damage;
//!    without one it is the torn end, never acknowledged.
//! 2. Groups are numbered without gaps; what an older round left in the ring has lower numbers and is not read.
//! 3. The tag in each header is secret to the store, so that no object's bytes can pass for a group.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Put, Take};
use super::device::Device;
use super::direct::AlignedBuf;
use crate::error::StoreError;

/// Bytes before the ring: the file's own header.
pub(crate) const START: u64 = 4096;
/// Bytes of a group's header.
pub(crate) const HEADER: usize = 64;
const MAGIC: &[u8] = b"NacreGrp";
const VERSION: u32 = 1;
/// Groups start at multiples of this, at least.
const SECTOR: u64 = 512;
/// ... and of this on disks with large sectors.
const LARGE_SECTOR: u64 = 4096;
/// Bytes read at a time, so that opening takes little memory however large the journal is.
const WINDOW: u64 = 1 << 20;

pub(crate) struct Journal {
    device: Arc<dyn Device>,
    tag: u64,
    /// What groups are padded to.
    sector: u64,
    ring: u64,
    head: u64,
    next: u64,
    live: VecDeque<Placed>,
    /// Whether the device's writes are durable by themselves.
    durable_writes: bool,
}

/// Where a group is.
struct Placed {
    number: u64,
    last: u64,
    at: u64,
}

/// A group read back.
pub(crate) struct Group {
    pub payload: Bytes,
    pub last: u64,
    at: u64,
    len: u64,
}

impl Journal {
    /// A journal of so many bytes that goes on at group `next`, at or behind `head`.
    pub(crate) fn new(
        device: Arc<dyn Device>,
        bytes: u64,
        tag: u64,
        (next, head): (u64, u64),
        durable_writes: bool,
    ) -> Self {
        let sector = device.align().max(SECTOR);
        let ring = bytes.saturating_sub(START) / sector * sector;
        Journal { device, tag, sector, ring, head, next, live: VecDeque::new(), durable_writes }
    }

    /// Bytes of the ring.
    pub(crate) fn ring(&self) -> u64 {
        self.ring
    }

    /// Writes one group, whose buffer has room for the header at its front, and makes it durable.
    pub(crate) fn append(&mut self, buf: &mut AlignedBuf, first: u64, last: u64) -> Result<u64, StoreError> {
        let payload = buf.len() - HEADER;
        buf.pad(self.sector as usize);
        let len = buf.len() as u64;
        // A journal that was moved here from a disk with smaller sectors may end in the middle of one.
        self.head = self.head.next_multiple_of(self.sector);
        let at = if self.head + len > self.ring { 0 } else { self.head };
        if let Some(oldest) = self.live.front() {
            // Space is granted before a transaction is taken, so this cannot run into what is still needed.
            let clear = if self.head > oldest.at {
                at == self.head || len <= oldest.at
            } else {
                at == self.head && at + len <= oldest.at
            };
            assert!(clear, "journal group {} would overwrite group {}", self.next, oldest.number);
        }
        assert!(len <= self.ring, "a journal group of {len} bytes exceeds the ring");
        let header = Header {
            tag: self.tag,
            number: self.next,
            first,
            last,
            payload: payload as u32,
            payload_crc: crc32fast::hash(&buf[HEADER..HEADER + payload]),
        };
        buf[..HEADER].copy_from_slice(&header.encode());
        self.device.write(START + at, buf).map_err(|error| StoreError::io("cannot write the journal", error))?;
        if !self.durable_writes {
            self.device.sync().map_err(|error| StoreError::io("cannot flush the journal", error))?;
        }
        self.live.push_back(Placed { number: self.next, last, at });
        self.next += 1;
        self.head = at + len;
        Ok(len)
    }

    /// Where replay would have to start if everything up to `seq` needed no replay: group and place.
    pub(crate) fn position_after(&self, seq: u64) -> (u64, u64) {
        self.live.iter().find(|group| group.last > seq).map_or((self.next, self.head), |group| (group.number, group.at))
    }

    /// Forgets groups that hold nothing after `seq`.
    pub(crate) fn trim(&mut self, seq: u64) {
        while self.live.front().is_some_and(|group| group.last <= seq) {
            self.live.pop_front();
        }
    }

    /// Reads all groups from here to the end, calling `replay` with each; then stands ready to append.
    pub(crate) fn replay(
        &mut self,
        replay: &mut dyn FnMut(Group) -> Result<(), StoreError>,
        cut: bool,
    ) -> Result<(), StoreError> {
        let mut ring = Ring::new(self);
        while let Some(group) = self.following(&mut ring)? {
            let (at, len, last) = (group.at, group.len, group.last);
            self.live.push_back(Placed { number: self.next, last, at });
            self.head = at + len;
            self.next += 1;
            replay(group)?;
        }
        if !cut && self.later_group(&mut ring, 0)?.is_some() {
            return Err(StoreError::JournalDamaged { group: self.next });
        }
        // What a killed process wrote may still be in the disk's cache. It counts from here on, so it must not be lost
        // while a later group is kept.
        if self.live.is_empty() {
            return Ok(());
        }
        self.device.sync().map_err(|error| StoreError::io("cannot flush the journal", error))
    }

    /// The group with the next number, if it is whole.
    fn following(&self, ring: &mut Ring) -> Result<Option<Group>, StoreError> {
        let large = self.head.next_multiple_of(LARGE_SECTOR);
        for at in [self.head, large, 0] {
            if let Some(group) = self.parse(ring, at, Some(self.next))? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Bytes that the groups not yet trimmed take, and what may be lost behind the last.
    pub(crate) fn live_bytes(&self) -> u64 {
        let Some(oldest) = self.live.front() else { return 0 };
        if self.head > oldest.at { self.head - oldest.at } else { self.ring - oldest.at + self.head }
    }

    /// Destroys groups that stand behind damage, so that none of them is ever found again.
    pub(crate) fn wipe_behind(&mut self) -> Result<(), StoreError> {
        let zeros = AlignedBuf::zeroed(self.sector as usize);
        let failed = |error| StoreError::io("cannot write the journal", error);
        let (mut ring, mut from) = (Ring::new(self), 0);
        while let Some(at) = self.later_group(&mut ring, from)? {
            self.device.write(START + at / self.sector * self.sector, &zeros).map_err(failed)?;
            from = at + SECTOR;
        }
        self.device.sync().map_err(failed)
    }

    /// Where a whole group with a later number stands, from a place on.
    fn later_group(&self, ring: &mut Ring, from: u64) -> Result<Option<u64>, StoreError> {
        for at in (from..self.ring).step_by(SECTOR as usize) {
            if ring.bytes(at, MAGIC.len() as u64)? == Some(MAGIC) && self.parse(ring, at, None)?.is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The group at a place, if it is whole and has the number (or, without one, a later number than the next).
    fn parse(&self, ring: &mut Ring, at: u64, number: Option<u64>) -> Result<Option<Group>, StoreError> {
        let Some(header) = ring.bytes(at, HEADER as u64)?.and_then(<[u8]>::first_chunk::<HEADER>) else {
            return Ok(None);
        };
        let Some(header) = Header::decode(header) else { return Ok(None) };
        let right = number.map_or(header.number > self.next, |number| header.number == number);
        if header.tag != self.tag || !right {
            return Ok(None);
        }
        let len = u64::from(header.payload);
        // A copy: what replay keeps must not keep the window in memory.
        let Some(payload) = ring.bytes(at + HEADER as u64, len)?.map(Bytes::copy_from_slice) else { return Ok(None) };
        if crc32fast::hash(&payload) != header.payload_crc {
            return Ok(None);
        }
        let len = (HEADER as u64 + len).next_multiple_of(SECTOR);
        Ok(Some(Group { payload, last: header.last, at, len }))
    }
}

/// What stands before a group's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    tag: u64,
    number: u64,
    first: u64,
    last: u64,
    payload: u32,
    payload_crc: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.bytes(MAGIC);
        [self.tag, self.number, self.first, self.last].into_iter().for_each(|number| out.u64(number));
        [self.payload, VERSION, self.payload_crc, 0, 0].into_iter().for_each(|number| out.u32(number));
        let crc = crc32fast::hash(&out);
        out.u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let (head, tail) = bytes.split_last_chunk::<4>()?;
        let mut take = Take::new(Bytes::copy_from_slice(head));
        if take.take(8).ok()?.as_ref() != MAGIC || crc32fast::hash(head) != u32::from_le_bytes(*tail) {
            return None;
        }
        let [tag, number, first, last] = [take.u64().ok()?, take.u64().ok()?, take.u64().ok()?, take.u64().ok()?];
        let (payload, version, payload_crc) = (take.u32().ok()?, take.u32().ok()?, take.u32().ok()?);
        (version == VERSION).then_some(Header { tag, number, first, last, payload, payload_crc })
    }
}

/// The ring's bytes, a window of them at a time.
struct Ring {
    device: Arc<dyn Device>,
    ring: u64,
    window: AlignedBuf,
    from: u64,
}

impl Ring {
    fn new(journal: &Journal) -> Self {
        Ring { device: journal.device.clone(), ring: journal.ring, window: AlignedBuf::default(), from: 0 }
    }

    /// Bytes of the ring; `None` if they do not all lie within it.
    fn bytes(&mut self, at: u64, len: u64) -> Result<Option<&[u8]>, StoreError> {
        let Some(end) = at.checked_add(len).filter(|end| *end <= self.ring) else { return Ok(None) };
        if at < self.from || end > self.from + self.window.len() as u64 {
            self.from = at / LARGE_SECTOR * LARGE_SECTOR;
            let want = (end - self.from).max(WINDOW).next_multiple_of(LARGE_SECTOR).min(self.ring - self.from);
            self.window.resize(want as usize);
            let read = self.device.read(START + self.from, &mut self.window);
            if let Err(error) = read {
                self.window.clear();
                return Err(StoreError::io("cannot read the journal", error));
            }
        }
        Ok(self.window.get((at - self.from) as usize..(end - self.from) as usize))
    }
}
