//! Compression of object data: worth keeping only if it saves at least an eighth of the blocks.

use nacre_proto::txn::Compression;

use super::codec::Malformed;
use super::leaf::Packing;

/// Blocks packed together: what a read of one of them must unpack.
pub(crate) const UNIT: u64 = 32;

/// The packed form, if it saves enough.
pub(crate) fn pack(hint: Compression, data: &[u8]) -> Option<(Packing, Vec<u8>)> {
    let (packing, bytes) = match hint {
        Compression::Lz4 => (Packing::Lz4, lz4_flex::block::compress(data)),
        Compression::Zstd => (Packing::Zstd, zstd::bulk::compress(data, 3).ok()?),
    };
    let (stored, raw) = (bytes.len().div_ceil(4096), data.len() / 4096);
    (stored * 8 <= raw * 7).then_some((packing, bytes))
}

/// The `raw` blocks again.
pub(crate) fn unpack(packing: Packing, bytes: &[u8], raw: u16) -> Result<Vec<u8>, Malformed> {
    let len = usize::from(raw) * 4096;
    let data = match packing {
        Packing::Lz4 => lz4_flex::block::decompress(bytes, len).map_err(|_| Malformed)?,
        Packing::Zstd => zstd::bulk::decompress(bytes, len).map_err(|_| Malformed)?,
    };
    if data.len() == len { Ok(data) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn what_does_not_save_an_eighth_stays_raw() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut data = vec![0; 32 * 4096];
        for hint in [Compression::Lz4, Compression::Zstd] {
            data.fill(7);
            let (packing, bytes) = pack(hint, &data).unwrap();
            assert_eq!(unpack(packing, &bytes, 32).unwrap(), data);
            assert_eq!(unpack(packing, &bytes, 31), Err(Malformed));
            rng.fill_bytes(&mut data[..29 * 4096]);
            assert_eq!(pack(hint, &data), None);
        }
    }
}
