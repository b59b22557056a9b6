//! One entry of the map, as it is stored: eight bytes with a checksum of their own.

use nacre_client::SnapId;

/// Of the checksum: tells this form of an entry from all others.
const FORM: &[u8] = b"nacre object map 1";

/// What is known of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) exists: bool,
    /// The newest snapshot there was when it last changed.
    pub(crate) changed: SnapId,
}

/// Nothing is known.
pub(super) const UNKNOWN: Entry = Entry { exists: true, changed: SnapId(u64::MAX) };

fn sum(image: u64, index: u64, word: u64) -> u64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(FORM);
    for part in [image, index, word] {
        sum.update(&part.to_le_bytes());
    }
    u64::from(sum.finalize() & 0xffff)
}

impl Entry {
    pub(super) fn encode(self, image: u64, index: u64) -> [u8; 8] {
        if self == Entry::default() {
            return [0; 8];
        }
        // Numbers are counted from one: they never come near 2^47.
        let word = (self.changed.0 << 1 | u64::from(self.exists)) & (u64::MAX >> 16);
        (word << 16 | sum(image, index, word)).to_le_bytes()
    }

    pub(super) fn decode(image: u64, index: u64, bytes: [u8; 8]) -> Entry {
        let raw = u64::from_le_bytes(bytes);
        let word = raw >> 16;
        if raw == 0 {
            Entry::default()
        } else if raw & 0xffff == sum(image, index, word) {
            Entry { exists: word & 1 != 0, changed: SnapId(word >> 1) }
        } else {
            UNKNOWN
        }
    }

    /// What it becomes at a time when that is the newest snapshot.
    pub(super) fn become_now(self, change: Change, now: SnapId) -> Entry {
        if change == Change::Nothing {
            return self;
        }
        // Of what is not known, all that is known now is that it may have changed just now.
        let changed = if self == UNKNOWN { now } else { self.changed.max(now) };
        Entry { exists: change == Change::Touched, changed }
    }
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is about to change, and may exist from then on.
    Touched,
    /// It is gone.
    Gone,
    /// Nothing: its entry is read.
    Nothing,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_that_was_never_written_is_absent_and_damage_is_not_trusted() {
        assert_eq!(Entry::decode(7, 9, [0; 8]), Entry::default());
        let entry = Entry { exists: true, changed: SnapId(5) };
        let bytes = entry.encode(7, 9);
        assert_eq!(Entry::decode(7, 9, bytes), entry);
        assert_eq!(Entry::decode(7, 10, bytes), UNKNOWN, "it is another object's");
        assert_eq!(Entry::decode(8, 9, bytes), UNKNOWN, "it is another image's");
        assert_eq!(UNKNOWN.become_now(Change::Gone, SnapId(6)), Entry { exists: false, changed: SnapId(6) });
        assert_eq!(entry.become_now(Change::Gone, SnapId(4)), Entry { exists: false, changed: SnapId(5) });
        // As the first release wrote it.
        let kept = include_str!("../../../../fixtures/block/map-entry-1.txt").trim();
        assert_eq!(format!("{:016x}", u64::from_be_bytes(bytes)), kept);
    }

    proptest! {
        #[test]
        fn entries_are_read_back_and_flipped_bits_are_never_a_missing_object(
            image: u64, index: u64, exists: bool, changed in 0u64..1 << 40, bit in 0usize..64,
        ) {
            let entry = Entry { exists, changed: SnapId(changed) };
            let bytes = entry.encode(image, index);
            prop_assert_eq!(Entry::decode(image, index, bytes), entry);
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            if bytes != [0; 8] {
                prop_assert!(Entry::decode(image, index, bad).exists);
            }
        }
    }
}
