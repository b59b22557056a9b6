//! How far the store was synced, in a file of its own beside it.
//!
//! After a crash RocksDB cuts the tail of its journal at the first record it cannot read. That is right for records
//! that were never synced and a silent loss for those that were: a monitor that forgets a ballot or an entry it has
//! acknowledged can break consensus. The watermark tells the two apart: it is written, without a sync of its own, after
//! each sync of the journal, so it can only be behind what is on disk, never ahead.
//!
//! Two slots are written in turn, each with its checksum, so that one torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: [u8; 4] = *b"NWTR";
const VERSION: u32 = 1;
const SLOT: usize = 32;
/// The slots lie in different sectors.
const STRIDE: u64 = 4096;

/// The open file.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    last: u64,
    turn: u64,
}

pub(super) fn encode(sequence: u64, turn: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4..8].copy_from_slice(&VERSION.to_le_bytes());
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16..24].copy_from_slice(&turn.to_le_bytes());
    let sum = crc32fast::hash(&slot[..24]);
    slot[24..28].copy_from_slice(&sum.to_le_bytes());
    slot
}

pub(super) fn decode(slot: &[u8; SLOT]) -> Option<(u64, u64)> {
    let field = |at: usize| slot.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (sequence, turn) = (field(8)?, field(16)?);
    (*slot == encode(sequence, turn)).then_some((sequence, turn))
}

impl Watermark {
    /// Opens or creates it. Returns what it says: 0 when new or when neither slot is readable.
    pub fn open(path: &Path) -> io::Result<Watermark> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut best = (0, 0);
        for index in 0..2 {
            let mut slot = [0; SLOT];
            if file.read_exact_at(&mut slot, index * STRIDE).is_ok()
                && let Some((sequence, turn)) = decode(&slot)
                && turn > best.1
            {
                best = (sequence, turn);
            }
        }
        Ok(Watermark { file, last: best.0, turn: best.1 })
    }

    /// The sequence number up to which the journal was synced.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Notes that the journal is synced up to `sequence`.
    pub fn advance(&mut self, sequence: u64) -> io::Result<()> {
        if sequence <= self.last {
            return Ok(());
        }
        let turn = self.turn + 1;
        self.file.write_all_at(&encode(sequence, turn), (turn % 2) * STRIDE)?;
        self.last = sequence;
        self.turn = turn;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_readable_slot_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let mut mark = Watermark::open(&path).unwrap();
        assert_eq!(mark.last(), 0);
        for sequence in [5, 9, 9, 7, 12] {
            mark.advance(sequence).unwrap();
        }
        assert_eq!(Watermark::open(&path).unwrap().last(), 12);

        // Three turns were taken: the last went to slot 1. Torn, it leaves the one before.
        mark.file.write_all_at(&[0xff; 16], STRIDE).unwrap();
        assert_eq!(Watermark::open(&path).unwrap().last(), 9);
    }
}
