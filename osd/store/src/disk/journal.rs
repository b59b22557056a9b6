//! The journal: a ring of groups in a file that was written once from end to end before its first use.
//!
//! A group is what one write and one flush make durable: a header of 64 bytes and whole records, from a sector's start.
//! The next group begins at the next sector, or at the ring's start if it does not fit before the end. It knows nothing
//! of what records mean.
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
const MAGIC: &[u8; 8] = b"NacreGrp";
/// Groups start at multiples of this.
const SECTOR: u64 = 512;

pub(crate) struct Journal {
    device: Arc<dyn Device>,
    tag: u64,
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
    /// A journal that goes on at group `next`, at or behind `head`.
    pub(crate) fn new(device: Arc<dyn Device>, tag: u64, head: u64, next: u64, durable_writes: bool) -> Self {
        let ring = device.size().saturating_sub(START) / SECTOR * SECTOR;
        Journal { device, tag, ring, head, next, live: VecDeque::new(), durable_writes }
    }

    /// Bytes of the ring.
    pub(crate) fn ring(&self) -> u64 {
        self.ring
    }

    /// Writes one group, whose buffer has room for the header at its front, and makes it durable.
    pub(crate) fn append(&mut self, buf: &mut AlignedBuf, first: u64, last: u64) -> Result<u64, StoreError> {
        let payload = buf.len() - HEADER;
        buf.pad(SECTOR as usize);
        let len = buf.len() as u64;
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
        let mut header = Vec::with_capacity(HEADER);
        header.bytes(MAGIC);
        header.u64(self.tag);
        header.u64(self.next);
        header.u64(first);
        header.u64(last);
        header.u32(payload as u32);
        header.u32(1);
        header.u32(crc32fast::hash(&buf[HEADER..HEADER + payload]));
        header.u32(0);
        header.u32(0);
        header.u32(crc32fast::hash(&header));
        buf[..HEADER].copy_from_slice(&header);
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
        let ring = self.read_ring()?;
        loop {
            let here = self.parse(&ring, self.head, Some(self.next));
            let Some(group) = here.or_else(|| self.parse(&ring, 0, Some(self.next))) else { break };
            let (at, len, last) = (group.at, group.len, group.last);
            self.live.push_back(Placed { number: self.next, last, at });
            self.head = at + len;
            self.next += 1;
            replay(group)?;
        }
        if !cut && self.later_group(&ring) {
            return Err(StoreError::JournalDamaged { group: self.next });
        }
        Ok(())
    }

    /// Bytes that the groups not yet trimmed take, and what may be lost behind the last.
    pub(crate) fn live_bytes(&self) -> u64 {
        let Some(oldest) = self.live.front() else { return 0 };
        if self.head > oldest.at { self.head - oldest.at } else { self.ring - oldest.at + self.head }
    }

    /// Destroys groups that stand behind damage, so that none of them is ever found again.
    pub(crate) fn wipe_behind(&mut self) -> Result<(), StoreError> {
        let ring = self.read_ring()?;
        let zeros = AlignedBuf::zeroed(SECTOR as usize);
        let failed = |error| StoreError::io("cannot write the journal", error);
        for sector in 0..self.ring / SECTOR {
            let at = sector * SECTOR;
            if self.parse(&ring, at, None).is_some() {
                self.device.write(START + at, &zeros).map_err(failed)?;
            }
        }
        self.device.sync().map_err(failed)
    }

    /// Whether a whole group with a later number stands anywhere.
    fn later_group(&self, ring: &Bytes) -> bool {
        (0..self.ring / SECTOR).any(|sector| {
            let at = sector * SECTOR;
            ring.get(at as usize..at as usize + 8) == Some(MAGIC)
                && self.parse(ring, at, None).is_some_and(|group| group.len > 0)
        })
    }

    /// The group at a place, if it is whole and has the number (or, without one, a later number than the next).
    fn parse(&self, ring: &Bytes, at: u64, number: Option<u64>) -> Option<Group> {
        let from = usize::try_from(at).ok()?;
        let header = ring.get(from..from.checked_add(HEADER)?)?;
        let mut take = Take::new(Bytes::copy_from_slice(header));
        if take.take(8).ok()?.as_ref() != MAGIC || take.u64().ok()? != self.tag {
            return None;
        }
        let found = take.u64().ok()?;
        if number.map_or(found <= self.next, |number| found != number) {
            return None;
        }
        let _first = take.u64().ok()?;
        let last = take.u64().ok()?;
        let payload = take.u32().ok()? as usize;
        let version = take.u32().ok()?;
        let payload_crc = take.u32().ok()?;
        let (head, tail) = header.split_last_chunk::<4>()?;
        if version != 1 || crc32fast::hash(head) != u32::from_le_bytes(*tail) {
            return None;
        }
        let begin = from + HEADER;
        let end = begin.checked_add(payload).filter(|end| *end <= ring.len())?;
        // A copy: what replay keeps must not keep the whole ring in memory.
        let payload = Bytes::copy_from_slice(ring.get(begin..end)?);
        if crc32fast::hash(&payload) != payload_crc {
            return None;
        }
        let len = ((end - from) as u64).next_multiple_of(SECTOR);
        Some(Group { payload, last, at, len })
    }

    fn read_ring(&self) -> Result<Bytes, StoreError> {
        const STEP: usize = 4 << 20;
        let mut ring = AlignedBuf::zeroed(self.ring as usize);
        for (step, piece) in ring.chunks_mut(STEP).enumerate() {
            let at = START + (step * STEP) as u64;
            self.device.read(at, piece).map_err(|error| StoreError::io("cannot read the journal", error))?;
        }
        Ok(Bytes::from_owner(ring))
    }
}
