//! What a store says of itself on its devices: whose it is and how it is laid out. Written once, at format.
//!
//! The block space begins with two copies of the superblock, a block each; the journal's file with one block that names
//! the same store; RocksDB holds the store's number too. All three must agree.

use bytes::Bytes;
use nacre_proto::ids::{OsdId, Uuid};

use super::codec::{Malformed, Put, Take};

/// Blocks at the front of the block space that objects never get.
pub(crate) const RESERVED: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub store: Uuid,
    pub cluster: Uuid,
    pub osd: OsdId,
    /// Blocks of the block space, the reserved ones among them.
    pub blocks: u64,
    /// Secret mark of journal groups.
    pub tag: u64,
    /// Seconds since 1970.
    pub created: u64,
}

const MAGIC: &[u8; 8] = b"NacreStr";
const JOURNAL: &[u8; 8] = b"NacreJrn";
/// The version of everything on disk. Raised when a store written by a newer program cannot be read by an older one.
pub(crate) const VERSION: u32 = 1;

impl Superblock {
    fn seal(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.bytes(magic);
        out.u32(VERSION);
        out.blob(body);
        let crc = crc32fast::hash(&out);
        out.u32(crc);
        out.resize(4096, 0);
        out
    }

    fn open(magic: &[u8; 8], block: &[u8]) -> Result<Take, Malformed> {
        let mut take = Take::new(Bytes::copy_from_slice(block));
        if take.take(8)?.as_ref() != magic || take.u32()? != VERSION {
            return Err(Malformed);
        }
        let body = take.blob()?;
        let sealed = block.len() - take.left();
        if crc32fast::hash(block.get(..sealed).unwrap_or_default()) != take.u32()? {
            return Err(Malformed);
        }
        Ok(Take::new(body))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.bytes(&self.store.0);
        body.bytes(&self.cluster.0);
        body.u32(self.osd.0);
        [self.blocks, self.tag, self.created].into_iter().for_each(|number| body.u64(number));
        Self::seal(MAGIC, &body)
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Superblock, Malformed> {
        let mut take = Self::open(MAGIC, block)?;
        let superblock = Superblock {
            store: uuid(&mut take)?,
            cluster: uuid(&mut take)?,
            osd: OsdId(take.u32()?),
            blocks: take.u64()?,
            tag: take.u64()?,
            created: take.u64()?,
        };
        take.end()?;
        Ok(superblock)
    }

    /// The first block of a journal that has so many bytes with it.
    pub(crate) fn encode_journal(&self, bytes: u64) -> Vec<u8> {
        let mut body = self.store.0.to_vec();
        body.u64(bytes);
        Self::seal(JOURNAL, &body)
    }

    /// How many bytes this store's journal has, if a block begins it. The first stores of format 1 did not write it
    /// down: 0 for these.
    pub(crate) fn journal_bytes(&self, block: &[u8]) -> Option<u64> {
        let mut take = Self::open(JOURNAL, block).ok()?;
        let store = uuid(&mut take).ok()?;
        let bytes = if take.left() == 0 { 0 } else { take.u64().ok()? };
        (store == self.store).then_some(bytes)
    }

    /// Why a block is no superblock of ours, in words.
    pub(crate) fn explain(block: &[u8]) -> String {
        match block.get(..12).and_then(|head| head.split_first_chunk::<8>()) {
            Some((magic, version)) if magic == MAGIC => {
                let version = version.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                if version == VERSION {
                    "both copies of its superblock are damaged".into()
                } else {
                    format!("it has format {version}, this program knows {VERSION}")
                }
            }
            _ => "it has no superblock; `nacre store format` makes a new store".into(),
        }
    }
}

fn uuid(take: &mut Take) -> Result<Uuid, Malformed> {
    take.take(16)?.first_chunk::<16>().map(|bytes| Uuid(*bytes)).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_survives_and_any_flip_is_noticed() {
        let superblock =
            Superblock { store: Uuid([1; 16]), cluster: Uuid([2; 16]), osd: OsdId(3), blocks: 4, tag: 5, created: 6 };
        let block = superblock.encode();
        assert_eq!(Superblock::decode(&block), Ok(superblock));
        assert_eq!(superblock.journal_bytes(&superblock.encode_journal(77)), Some(77));
        let sealed = 8 + 4 + 1 + 60 + 4;
        for bit in 0..sealed * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
