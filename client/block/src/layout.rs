//! Which object holds which bytes of an image.

/// A part of a range that lies in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which object.
    pub(crate) index: u64,
    /// Where in it.
    pub(crate) at: u64,
    /// How much.
    pub(crate) len: u64,
    /// Where in the range.
    pub(crate) from: u64,
}

/// Cuts a range at the borders of objects. The range does not reach past 2^64.
pub(crate) fn pieces(order: u8, offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    let size = 1u64 << order;
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == len {
            return None;
        }
        let at = offset + from;
        let within = at & (size - 1);
        let piece = Piece { index: at >> order, at: within, len: (size - within).min(len - from), from };
        from += piece.len;
        Some(piece)
    })
}

/// How many objects so many bytes take.
pub(crate) fn objects(order: u8, size: u64) -> u64 {
    size.div_ceil(1 << order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_is_cut_at_the_borders_of_objects() {
        let cut: Vec<_> = pieces(12, 4000, 5000).map(|p| (p.index, p.at, p.len, p.from)).collect();
        assert_eq!(cut, [(0, 4000, 96, 0), (1, 0, 4096, 96), (2, 0, 808, 4192)]);
        assert_eq!(pieces(12, 5, 0).count(), 0);
        assert_eq!((objects(12, 0), objects(12, 1), objects(12, 4096), objects(12, 4097)), (0, 1, 1, 2));
        assert_eq!(objects(22, u64::MAX), 1 << 42);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once(order in 12u8..=25, offset in 0u64..1 << 40, len in 0u64..1 << 27) {
            let mut next = offset;
            for piece in pieces(order, offset, len) {
                prop_assert_eq!((piece.index << order) + piece.at, next);
                prop_assert_eq!(piece.from, next - offset);
                prop_assert!(piece.len > 0 && piece.at + piece.len <= 1 << order);
                next += piece.len;
            }
            prop_assert_eq!(next, offset + len);
        }
    }
}
