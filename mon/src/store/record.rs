//! The frame around everything the store writes: magic, version, kind, length, checksum. The checksum also covers the
//! key, so that a record that turned up in another's place is recognised.
//!
//! ```text
//! 0  4  magic "NMON"
//! 4  2  version, little endian
//! 6  2  kind
//! 8  4  length of the payload
//! 12 4  crc32 over version, kind, length, key, payload
//! 16    payload
//! ```

use bytes::Bytes;

/// The first bytes of each record.
pub const MAGIC: [u8; 4] = *b"NMON";
/// The version written. 1: the first.
pub const VERSION: u16 = 1;
const HEADER: usize = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Whose store it is.
    Identity = 1,
    /// The ballot given.
    Ballot = 2,
    /// The log id known to be committed.
    Committed = 3,
    /// The log id up to which the log was cut.
    Purged = 4,
    /// One log entry.
    Entry = 5,
    /// What the snapshot covers.
    SnapshotMeta = 6,
    /// The snapshot.
    Snapshot = 7,
    /// A backup of a monitor.
    Backup = 8,
    /// The authority and first certificates of a new cluster.
    Birth = 9,
    /// The authority with its key sealed.
    Authority = 10,
}

/// Why bytes are not the record they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its header or than the header says.
    #[error("truncated: {have} bytes of {want}")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// Other first bytes.
    #[error("no record of a monitor (magic {0:02x?})")]
    Magic([u8; 4]),
    /// Written by a later release.
    #[error("written in format {0}, this release reads up to {VERSION}: start a newer release")]
    Version(u16),
    /// Another kind than expected here.
    #[error("a record of kind {have} where kind {want} belongs")]
    Kind {
        /// Found.
        have: u16,
        /// Expected.
        want: u16,
    },
    /// Bits have changed.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// In the record.
        stored: u32,
        /// Of its bytes.
        computed: u32,
    },
}

pub(super) fn checksum(fields: &[u8], key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fields);
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

/// Puts a payload into its frame. A payload over 4 GiB cannot be framed and is a bug of the caller.
pub fn encode(kind: Kind, key: &[u8], payload: &[u8]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "entries and snapshots are bounded far below 4 GiB before they get here")]
    let length = u32::try_from(payload.len()).expect("a record stays below 4 GiB");
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(kind as u16).to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(&out[4..12], key, payload);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// Takes a payload out of its frame.
pub fn decode(kind: Kind, key: &[u8], record: &[u8]) -> Result<Bytes, RecordError> {
    let truncated = |want| RecordError::Truncated { have: record.len(), want };
    let (header, rest) = record.split_first_chunk::<HEADER>().ok_or_else(|| truncated(HEADER))?;
    let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(RecordError::Magic([m0, m1, m2, m3]));
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version == 0 || version > VERSION {
        return Err(RecordError::Version(version));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if rest.len() != length {
        return Err(truncated(HEADER.saturating_add(length)));
    }
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    let computed = checksum(&header[4..12], key, rest);
    if stored != computed {
        return Err(RecordError::Checksum { stored, computed });
    }
    let have = u16::from_le_bytes([k0, k1]);
    if have != kind as u16 {
        return Err(RecordError::Kind { have, want: kind as u16 });
    }
    Ok(Bytes::copy_from_slice(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_recognised() {
        let record = encode(Kind::Entry, b"key", b"payload");
        assert_eq!(decode(Kind::Entry, b"key", &record).unwrap().as_ref(), b"payload");
        for bit in 0..record.len() * 8 {
            let mut broken = record.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Kind::Entry, b"key", &broken).is_err(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(decode(Kind::Entry, b"key", &record[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_record_in_anothers_place_is_refused() {
        let record = encode(Kind::Entry, b"key", b"payload");
        assert!(matches!(decode(Kind::Entry, b"kex", &record), Err(RecordError::Checksum { .. })));
        assert_eq!(decode(Kind::Ballot, b"key", &record), Err(RecordError::Kind { have: 5, want: 2 }));
    }
}
