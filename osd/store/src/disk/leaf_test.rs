//! Cuts and insertions against a plain table of blocks.

use proptest::prelude::*;

use super::*;

fn raw(at: u16, len: u16, phys: u64) -> Extent {
    Extent {
        at,
        len,
        phys,
        shared: false,
        packed: None,
        crcs: (0..len).map(|i| (phys as u32) + u32::from(i)).collect::<Vec<_>>().into(),
    }
}

fn packed(at: u16, len: u16, phys: u64) -> Extent {
    let packed = Packed { packing: Packing::Lz4, bytes: 4097, raw: len, skip: 0 };
    Extent { at, len, phys, shared: false, packed: Some(packed), crcs: vec![1, 2].into() }
}

/// For each block of the leaf, where its bytes are.
fn table(leaf: &Leaf) -> Vec<Option<(u64, u16)>> {
    (0..LEAF)
        .map(|block| {
            leaf.find(block).map(|extent| match extent.packed {
                None => (extent.phys + u64::from(block - extent.at), 0),
                Some(packed) => (extent.phys, packed.skip + block - extent.at),
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn a_leaf_maps_what_was_put_last(steps in proptest::collection::vec((0..250u16, 1..20u16, 0..3u8), 1..60)) {
        let mut leaf = Leaf::default();
        let mut model = vec![None; usize::from(LEAF)];
        let mut next = 1000;
        // References by first block: raw blocks one by one, packed runs by their first.
        let mut held = std::collections::BTreeMap::<u64, i64>::new();
        for (at, len, kind) in steps {
            let len = len.min(LEAF - at);
            let cut = leaf.cut(at, at + len);
            for extent in &cut.dropped {
                let blocks = if extent.packed.is_some() { 1 } else { extent.stored() };
                for block in extent.phys..extent.phys + blocks {
                    *held.entry(block).or_default() -= 1;
                }
            }
            for (phys, _) in &cut.doubled {
                *held.entry(*phys).or_default() += 1;
            }
            for block in at..at + len {
                model[usize::from(block)] = match kind { 0 => None, 1 => Some((next + u64::from(block - at), 0)), _ => Some((next, block - at)) };
            }
            match kind {
                0 => {}
                1 => {
                    leaf.insert(raw(at, len, next));
                    (next..next + u64::from(len)).for_each(|block| *held.entry(block).or_default() += 1);
                }
                _ => {
                    leaf.insert(packed(at, len, next));
                    *held.entry(next).or_default() += 1;
                }
            }
            next += 20;
            prop_assert_eq!(&table(&leaf), &model);
            prop_assert_eq!(Leaf::decode(leaf.encode().into()).unwrap(), leaf.clone());
            let mut counted = std::collections::BTreeMap::<u64, i64>::new();
            for extent in &leaf.extents {
                let blocks = if extent.packed.is_some() { 1 } else { extent.stored() };
                for block in extent.phys..extent.phys + blocks {
                    *counted.entry(block).or_default() += 1;
                }
            }
            held.retain(|_, count| *count != 0);
            prop_assert_eq!(&counted, &held);
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut with_version = vec![1];
        with_version.extend(bytes);
        if let Ok(leaf) = Leaf::decode(with_version.into()) {
            let _ = table(&leaf);
        }
    }
}

#[test]
fn neighbours_join_and_checksums_follow() {
    let mut leaf = Leaf::default();
    leaf.insert(raw(0, 2, 10));
    leaf.insert(raw(4, 2, 14));
    leaf.insert(raw(2, 2, 12));
    assert_eq!(leaf.extents, vec![raw(0, 6, 10)]);
}
