//! What changed in an image between two of its snapshots, or between a snapshot and now: object by object, by the
//! version each had at both times. The object map tells which objects are worth the look. No data is read.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::error::Error;
use crate::image::{Image, View, same};
use crate::object_map::parts;

/// Looks at a time.
const LOOKS: usize = 32;

/// A range whose bytes may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From where.
    pub offset: u64,
    /// How much; the last one ends with the image.
    pub len: u64,
}

/// What shows of the parent in an object.
fn shows(view: &View, index: u64) -> u64 {
    view.parent.as_ref().map_or(0, |parent| view.layout.below(index, parent.overlap))
}

impl Image {
    /// The ranges of this image (or snapshot) that may differ from an older snapshot of it; from nothing, if none is
    /// given: those that hold anything. In order, adjacent ones joined. Looks at those objects only that its object map
    /// names.
    pub async fn changed_since(&self, older: Option<&Image>) -> Result<Vec<Range>, Error> {
        self.differences(older, true).await
    }

    /// The same, by a look at each object.
    pub async fn changed_since_by_objects(&self, older: Option<&Image>) -> Result<Vec<Range>, Error> {
        self.differences(older, false).await
    }

    async fn differences(&self, older: Option<&Image>, by_map: bool) -> Result<Vec<Range>, Error> {
        let now = self.view();
        let then = older.map(Image::view);
        if older.is_some_and(|older| older.id() != self.id()) {
            return Err(Error::Stream("the two are not of one image".into()));
        }
        let (now, then) = (&now, then.as_ref());
        // Up to here it is not the object alone that decides what is to be seen.
        let overlap = |view: &View| view.parent.as_ref().map_or(0, |parent| parent.overlap);
        let shown = match then {
            None => overlap(now),
            Some(then) => match (&now.parent, &then.parent) {
                (Some(a), Some(b)) if same(&a.of, &b.of) && a.overlap == b.overlap => 0,
                _ => overlap(now).max(overlap(then)),
            },
        };
        // A border that moved within an object shows or hides zeros.
        let border = |index: u64| {
            then.is_some_and(|then| {
                let was = now.layout.below(index, then.size);
                then.size < now.size && was > 0 && was < now.layout.below(index, now.size)
            })
        };
        let since = then.and_then(|then| then.at);
        // What happened before there was a map it does not tell.
        let by_map = by_map && since.is_none_or(|since| since > now.held.image.map_since);
        let mut ranges: Vec<Range> = Vec::new();
        for part in parts(0..now.layout.objects(now.size)) {
            let want = |index: u64, entry: crate::object_map::Entry| {
                let object = match since {
                    Some(since) => entry.changed >= since,
                    None => entry.exists || older.is_some(),
                };
                object || now.layout.below(index, shown) > 0 || border(index)
            };
            let picked = if by_map { self.picked(now, part, want).await? } else { part.collect() };
            let looks = picked.into_iter().map(|index| async move {
                let new = self.stored(now, index).await?.map(|stat| stat.version);
                let differs = match (older, then) {
                    (Some(older), Some(then)) => {
                        let old = older.stored(then, index).await?.map(|stat| stat.version);
                        let parent = match (&now.parent, &then.parent) {
                            (Some(a), Some(b)) => same(&a.of, &b.of) && shows(now, index) == shows(then, index),
                            (None, None) => true,
                            _ => shows(now, index) == 0 && shows(then, index) == 0,
                        };
                        new != old || (new.is_none() && !parent) || border(index)
                    }
                    _ => new.is_some() || shows(now, index) > 0,
                };
                Ok::<_, Error>((index, differs))
            });
            let mut looks = stream::iter(looks).buffered(LOOKS);
            while let Some((index, differs)) = looks.try_next().await? {
                if !differs {
                    continue;
                }
                for place in now.layout.places(index, 0, now.layout.below(index, now.size)) {
                    match ranges.last_mut() {
                        Some(last) if last.offset + last.len == place.offset => last.len += place.len,
                        _ => ranges.push(Range { offset: place.offset, len: place.len }),
                    }
                }
            }
        }
        if now.held.image.stripe_count > 1 {
            ranges.sort_unstable_by_key(|range| range.offset);
            ranges.dedup_by(|next, last| {
                let joins = last.offset + last.len == next.offset;
                if joins {
                    last.len += next.len;
                }
                joins
            });
        }
        Ok(ranges)
    }
}
