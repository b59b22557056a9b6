//! What changed in an image between two of its snapshots, or between a snapshot and now: object by object, by the
//! version each had at both times. No data is read.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::error::Error;
use crate::image::{Image, View, same};
use crate::layout::objects;

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
    let base = index << view.order;
    view.parent.as_ref().map_or(0, |parent| parent.overlap.saturating_sub(base).min(1 << view.order))
}

impl Image {
    /// The ranges of this image (or snapshot) that may differ from an older snapshot of it; from nothing, if none is
    /// given: those that hold anything. In order, adjacent ones joined.
    pub async fn changed_since(&self, older: Option<&Image>) -> Result<Vec<Range>, Error> {
        let now = self.view();
        let then = older.map(Image::view);
        if older.is_some_and(|older| older.id() != self.id()) {
            return Err(Error::Stream("the two are not of one image".into()));
        }
        let (now, then) = (&now, then.as_ref());
        let looks = (0..objects(now.order, now.size)).map(|index| async move {
            let new = self.stored(now, index).await?.map(|stat| stat.version);
            let differs = match (older, then) {
                (Some(older), Some(then)) => {
                    let old = older.stored(then, index).await?.map(|stat| stat.version);
                    let parent = match (&now.parent, &then.parent) {
                        (Some(a), Some(b)) => same(&a.of, &b.of) && shows(now, index) == shows(then, index),
                        (None, None) => true,
                        _ => shows(now, index) == 0 && shows(then, index) == 0,
                    };
                    // A border that moved within the object shows or hides zeros.
                    let border = then.size < now.size && then.size >> now.order == index;
                    new != old || (new.is_none() && !parent) || border
                }
                _ => new.is_some() || shows(now, index) > 0,
            };
            Ok::<_, Error>((index, differs))
        });
        let mut looks = stream::iter(looks).buffered(LOOKS);
        let mut ranges: Vec<Range> = Vec::new();
        while let Some((index, differs)) = looks.try_next().await? {
            if !differs {
                continue;
            }
            let offset = index << now.order;
            let len = (now.size - offset).min(1 << now.order);
            match ranges.last_mut() {
                Some(last) if last.offset + last.len == offset => last.len += len,
                _ => ranges.push(Range { offset, len }),
            }
        }
        Ok(ranges)
    }
}
