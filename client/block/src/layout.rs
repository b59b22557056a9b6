//! Which object holds which bytes of an image.
//!
//! Without stripes, one object after the other is filled. With stripes, bytes are dealt out to a set of objects in turn, a
//! unit to each, until the set is full. In both, what comes later in an object comes later in the image: so the part of an
//! object that lies below some byte of the image is always its front part ([`Layout::below`]).

use nacre_client::class::image::Image as Head;

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

/// A part of an object, and where in the image it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where in the object.
    pub(crate) at: u64,
    /// Where in the image.
    pub(crate) offset: u64,
    /// How much.
    pub(crate) len: u64,
}

/// How an image's bytes are dealt out. No size is above [`crate::create::LARGEST`]: the end of every set is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    order: u8,
    /// Bytes of a unit: a divisor of an object's.
    unit: u64,
    /// Objects of a set.
    count: u64,
}

impl Layout {
    pub(crate) fn of(head: &Head) -> Layout {
        if head.stripe_count > 1 && head.stripe_unit > 0 {
            return Layout { order: head.order, unit: head.stripe_unit, count: head.stripe_count };
        }
        Layout::plain(head.order)
    }

    /// Without stripes.
    pub(crate) fn plain(order: u8) -> Layout {
        Layout { order, unit: 1 << order, count: 1 }
    }

    /// Bytes of an object.
    pub(crate) fn object(&self) -> u64 {
        1 << self.order
    }

    /// Bytes of a set of objects.
    fn set(&self) -> u64 {
        self.count << self.order
    }

    /// Cuts a range at the borders of units. The range does not reach past the largest image.
    pub(crate) fn pieces(self, offset: u64, len: u64) -> impl Iterator<Item = Piece> {
        let mut from = 0;
        std::iter::from_fn(move || {
            if from == len {
                return None;
            }
            let offset = offset + from;
            let (set, within) = (offset / self.set(), offset % self.set());
            let (row, rest) = (within / (self.unit * self.count), within % (self.unit * self.count));
            let index = set * self.count + rest / self.unit;
            let into = rest % self.unit;
            let piece = Piece { index, at: row * self.unit + into, len: (self.unit - into).min(len - from), from };
            from += piece.len;
            Some(piece)
        })
    }

    /// Where a part of an object lies in the image, in rising order.
    pub(crate) fn places(self, index: u64, at: u64, len: u64) -> impl Iterator<Item = Place> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == len {
                return None;
            }
            let at = at + done;
            let (row, into) = (at / self.unit, at % self.unit);
            let offset = (index / self.count) * self.set()
                + row * self.unit * self.count
                + (index % self.count) * self.unit
                + into;
            let place = Place { at, offset, len: (self.unit - into).min(len - done) };
            done += place.len;
            Some(place)
        })
    }

    /// How many bytes of an object lie below a byte of the image: its front part.
    pub(crate) fn below(&self, index: u64, end: u64) -> u64 {
        let base = (index / self.count) * self.set();
        let within = end.saturating_sub(base).min(self.set());
        let (rows, rest) = (within / (self.unit * self.count), within % (self.unit * self.count));
        rows * self.unit + rest.saturating_sub((index % self.count) * self.unit).min(self.unit)
    }

    /// The first object that may hold anything from a byte of the image on.
    pub(crate) fn first(&self, from: u64) -> u64 {
        from / self.set() * self.count
    }

    /// One more than the last object of an image of that size.
    pub(crate) fn objects(&self, size: u64) -> u64 {
        let (sets, rest) = (size / self.set(), size % self.set());
        sets * self.count + rest.div_ceil(self.unit).min(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_is_cut_at_the_borders_of_objects() {
        let plain = Layout::plain(12);
        let cut: Vec<_> = plain.pieces(4000, 5000).map(|p| (p.index, p.at, p.len, p.from)).collect();
        assert_eq!(cut, [(0, 4000, 96, 0), (1, 0, 4096, 96), (2, 0, 808, 4192)]);
        assert_eq!(plain.pieces(5, 0).count(), 0);
        assert_eq!([0, 1, 4096, 4097].map(|size| plain.objects(size)), [0, 1, 1, 2]);
        assert_eq!(Layout::plain(22).objects(1 << 62), 1 << 40);
    }

    #[test]
    fn the_end_of_the_largest_image_is_reckoned_with() {
        let end = crate::create::LARGEST;
        assert_eq!(end, u64::MAX - (32 << 30) + 1);
        for layout in [
            Layout::plain(12),
            Layout::plain(25),
            Layout { order: 25, unit: 1 << 25, count: 1024 },
            Layout { order: 25, unit: 512, count: 1023 },
            Layout { order: 12, unit: 4096, count: 3 },
        ] {
            let pieces: Vec<Piece> = layout.pieces(end - 70_000, 70_000).collect();
            assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), 70_000);
            for piece in pieces {
                let offset = end - 70_000 + piece.from;
                let place = Place { at: piece.at, offset, len: piece.len };
                assert_eq!(layout.places(piece.index, piece.at, piece.len).collect::<Vec<_>>(), [place]);
                assert!(layout.below(piece.index, end) >= piece.at + piece.len);
                assert!((layout.first(offset)..layout.objects(end)).contains(&piece.index));
                // Whole objects are gone over too, past the end of the image.
                let whole: u64 = layout.places(piece.index, 0, layout.object()).map(|place| place.len).sum();
                assert_eq!(whole, layout.object());
            }
        }
    }

    #[test]
    fn units_are_dealt_out_in_turn() {
        let striped = Layout { order: 12, unit: 1024, count: 3 };
        let cut: Vec<_> = striped.pieces(1000, 3200).map(|p| (p.index, p.at, p.len, p.from)).collect();
        assert_eq!(
            cut,
            [(0, 1000, 24, 0), (1, 0, 1024, 24), (2, 0, 1024, 1048), (0, 1024, 1024, 2072), (1, 1024, 104, 3096)]
        );
        assert_eq!(striped.pieces(3 * 4096, 1).next().map(|p| (p.index, p.at)), Some((3, 0)));
        assert_eq!(
            [1, 1024, 1025, 2049, 5000, 3 * 4096, 3 * 4096 + 1].map(|size| striped.objects(size)),
            [1, 1, 2, 3, 3, 3, 4]
        );
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        (12u8..=16, 0u32..4, 1u64..6).prop_map(|(order, cut, count)| match count {
            1 => Layout::plain(order),
            count => Layout { order, unit: 1 << (u32::from(order) - cut), count },
        })
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_and_places_lead_back(
            layout in layouts(), offset in 0u64..1 << 21, len in 0u64..1 << 19, end in 0u64..1 << 21,
        ) {
            let mut next = 0;
            for piece in layout.pieces(offset, len) {
                prop_assert_eq!(piece.from, next);
                prop_assert!(piece.len > 0 && piece.at + piece.len <= layout.object());
                let back: Vec<Place> = layout.places(piece.index, piece.at, piece.len).collect();
                prop_assert_eq!(back, vec![Place { at: piece.at, offset: offset + piece.from, len: piece.len }]);
                // What lies below a byte is a front part.
                let below = end.saturating_sub(offset + piece.from).min(piece.len);
                prop_assert_eq!(layout.below(piece.index, end).clamp(piece.at, piece.at + piece.len) - piece.at, below);
                prop_assert!(piece.index < layout.objects(offset + len) && piece.index >= layout.first(offset));
                next += piece.len;
            }
            prop_assert_eq!(next, len);
            // The parts below a byte add up to all that is below it.
            let parts: u64 = (0..layout.objects(end)).map(|index| layout.below(index, end)).sum();
            prop_assert_eq!(parts, end);
        }
    }
}
