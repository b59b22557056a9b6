//! Deep copies, and holes made where zeros are stored.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::Pool;

use crate::create;
use crate::diff::Range;
use crate::error::Error;
use crate::image::{ABREAST, Image, Use};
use crate::layout::objects;
use crate::stream::{PIECE, runs};

/// Zeros shorter than this are left as they are.
const WORTH: u64 = 64 << 10;

impl Image {
    /// Makes an image of its own out of this one and its snapshots, in any pool.
    pub async fn copy_to(
        &self,
        pool: &Pool,
        name: &str,
        order: Option<u8>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let mut held = self.header();
        if self.view().at.is_some() {
            // A snapshot has none of its own.
            held.snaps.clear();
        }
        let order = order.unwrap_or(held.image.order);
        let first = held.snaps.first().map_or(self.size(), |snap| snap.size);
        create::create(pool, name, first.max(512), order).await?;
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
        let all = objects(view.order, view.size);
        let holes = (0..all).map(|index| async move {
            let Some(stat) = self.stored(view, index).await? else { return Ok(0) };
            let base = index << view.order;
            let len = stat.size.min(view.size - base);
            if len == 0 {
                return Ok(0);
            }
            let data = self.read_object(view, index, 0, len).await?;
            let mut freed = 0;
            for (at, run, zero) in runs(&data) {
                let (at, run) = (at as u64, run as u64);
                let whole = run == len;
                if zero && (whole || run >= WORTH) {
                    let len = if whole { (view.size - base).min(1 << view.order) } else { run };
                    self.zero_object(view, index, at, len).await?;
                    freed += run;
                }
            }
            Ok::<u64, Error>(freed)
        });
        let mut holes = stream::iter(holes).buffer_unordered(ABREAST);
        let (mut done, mut freed) = (0, 0);
        while let Some(bytes) = holes.try_next().await? {
            freed += bytes;
            done += 1;
            progress(done, all);
        }
        Ok(freed)
    }
}
