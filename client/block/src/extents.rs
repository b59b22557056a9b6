//! Which bytes of an image are stored, and how many: by its object map and a look at those objects that may exist.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::error::Error;
use crate::image::{ABREAST, Image, View};
use crate::object_map::parts;

impl Image {
    /// Runs of stored and of absent bytes that cover a front part of a range: at least one run, at most `most`. Known by
    /// the object: what an object holds up to its end counts as stored.
    pub async fn extents(&self, offset: u64, len: u64, most: usize) -> Result<Vec<(u64, bool)>, Error> {
        self.settle().await?;
        let view = self.view();
        self.within(&view, offset, len)?;
        let view = &view;
        let mut runs: Vec<(u64, bool)> = Vec::new();
        let there = self.there(view, offset, len).await?;
        let there = &there;
        let looks = view.layout.pieces(offset, len).map(|piece| async move {
            let may = there.as_ref().is_none_or(|there| there.contains(&piece.index));
            let stat = if may { self.stored(view, piece.index).await? } else { None };
            let found = match stat {
                Some(stat) => {
                    let data = stat.size.saturating_sub(piece.at).min(piece.len);
                    vec![(data, true), (piece.len - data, false)]
                }
                None => match &view.parent {
                    Some(parent) => {
                        let base = offset + piece.from;
                        let shown = parent.overlap.saturating_sub(base).min(piece.len);
                        let mut runs = Vec::new();
                        let mut at = 0;
                        while at < shown {
                            let more = parent.image.extents_boxed(base + at, shown - at).await?;
                            at += more.iter().map(|(len, _)| len).sum::<u64>();
                            runs.extend(more);
                        }
                        runs.push((piece.len - shown, false));
                        runs
                    }
                    None => vec![(piece.len, false)],
                },
            };
            Ok::<_, Error>(found)
        });
        let mut looks = stream::iter(looks).buffered(ABREAST);
        while let Some(found) = looks.try_next().await.map_err(|error| self.noted(error))? {
            for (len, stored) in found.into_iter().filter(|(len, _)| *len > 0) {
                if let Some(last) = runs.last_mut()
                    && last.1 == stored
                {
                    last.0 += len;
                    continue;
                }
                if runs.len() >= most.max(1) {
                    return Ok(runs);
                }
                runs.push((len, stored));
            }
        }
        Ok(runs)
    }

    /// Bytes that are stored for this image itself, not for its parent or its snapshots.
    pub async fn used(&self) -> Result<u64, Error> {
        let view = self.view();
        let view = &view;
        let mut used = 0;
        for part in parts(0..view.layout.objects(view.size)) {
            let looks = self.existing(view, part).await?.into_iter().map(|index| async move {
                Ok::<_, Error>(self.stored(view, index).await?.map_or(0, |stat| stat.size))
            });
            let looks = stream::iter(looks).buffer_unordered(2 * ABREAST);
            used += looks.try_fold(0, |sum, size| async move { Ok(sum + size) }).await?;
        }
        Ok(used)
    }

    /// The objects of a range that may exist, where it is worth to ask for them all at once.
    async fn there(&self, view: &View, offset: u64, len: u64) -> Result<Option<BTreeSet<u64>>, Error> {
        let all = view.layout.first(offset)..view.layout.objects(offset + len);
        let count = all.end - all.start;
        if !view.has_map() || !(8..1 << 16).contains(&count) {
            return Ok(None);
        }
        let mut there = BTreeSet::new();
        for part in parts(all) {
            there.extend(self.existing(view, part).await?);
        }
        Ok(Some(there))
    }
}
