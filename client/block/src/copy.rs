//! Deep copies, and holes made where zeros are stored.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::Pool;

use crate::create::{self, Shape};
use crate::diff::Range;
use crate::error::Error;
use crate::image::{ABREAST, Image, Use};
use crate::object_map::parts;
use crate::stream::{PIECE, runs};

/// Zeros shorter than this are left as they are.
const WORTH: u64 = 64 << 10;

impl Image {
    /// Makes an image of its own out of this one and its snapshots, in any pool.
    pub async fn copy_to(
        &self,
        pool: &Pool,
        name: &str,
        shape: impl Into<Shape>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let mut held = self.header();
        if self.view().at.is_some() {
            // A snapshot has none of its own.
            held.snaps.clear();
        }
        let shape = shape.into().or_as(&held.image);
        let first = held.snaps.first().map_or(self.size(), |snap| snap.size);
        create::create(pool, name, first.max(512), shape).await?;
        let to = Image::open_for(pool, name, Use::Write).await?;
        let steps = held.snaps.len() as u64 + 1;
        let done = async {
            let mut older: Option<Image> = None;
            for (step, snap) in held.snaps.iter().enumerate() {
                let from = Image::open_id(self.pool(), self.id(), &self.name(), Some(snap.id)).await?;
                to.become_like(&from, older.as_ref()).await?;
                to.snapshot(&snap.name).await?;
                older = Some(from);
                progress(step as u64 + 1, steps);
            }
            to.become_like(self, older.as_ref()).await?;
            progress(steps, steps);
            to.flush().await
        }
        .await;
        to.close().await?;
        done
    }

    /// Makes this image like another, which it is like where that one did not change since an older snapshot.
    async fn become_like(&self, from: &Image, older: Option<&Image>) -> Result<(), Error> {
        self.resize(from.size(), true).await?;
        let pieces = from.changed_since(older).await?.into_iter().flat_map(|Range { offset, len }| {
            (offset..offset + len).step_by(PIECE as usize).map(move |at| (at, PIECE.min(offset + len - at)))
        });
        let whole = older.is_none();
        let copies = pieces.map(|(at, len)| async move {
            let data: Bytes = from.read(at, len).await?;
            for (start, len, zero) in runs(&data) {
                let at = at + start as u64;
                match zero {
                    // A new image is zeros already.
                    true if whole => {}
                    true => self.zero(at, len as u64).await?,
                    false => self.write(at, data.slice(start..start + len)).await?,
                }
            }
            Ok::<_, Error>(())
        });
        stream::iter(copies).buffer_unordered(4).try_collect::<()>().await
    }

    /// Frees what only stores zeros; gives how many bytes that were. To be opened for writing, and not written meanwhile.
    pub async fn sparsify(&self, mut progress: impl FnMut(u64, u64)) -> Result<u64, Error> {
        self.writable()?;
        self.settle().await?;
        let view = self.view();
        let view = &view;
        let all = view.layout.objects(view.size);
        let gate = Arc::new(Arc::clone(&self.0.gate).read_owned().await);
        let look = |index: u64| async move {
            let Some(stat) = self.stored(view, index).await? else { return Ok((0, None)) };
            let last = view.layout.below(index, view.size);
            let len = stat.size.min(last);
            if len == 0 {
                return Ok((0, None));
            }
            let data = self.read_object(view, index, 0, len).await?;
            let (mut freed, mut removal) = (0, None);
            for (at, run, zero) in runs(&data) {
                let (at, run) = (at as u64, run as u64);
                let whole = run == len;
                if zero && (whole || run >= WORTH) {
                    let len = if whole { last } else { run };
                    removal = self.zero_object(view, index, at, len).await?.or(removal);
                    freed += run;
                }
            }
            Ok::<_, Error>((freed, removal))
        };
        let mut freed = 0;
        for part in parts(0..all) {
            let due = self.existing(view, part.clone()).await?;
            let (mut left, mut removals) = (due.len() as u64, Vec::new());
            let mut holes = stream::iter(due.into_iter().map(look)).buffer_unordered(ABREAST);
            while let Some((bytes, removal)) = holes.try_next().await? {
                freed += bytes;
                removals.extend(removal);
                left -= 1;
                progress(part.end.saturating_sub(left), all);
            }
            self.gone(removals, Arc::clone(&gate)).await?;
        }
        Ok(freed)
    }
}
