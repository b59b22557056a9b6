//! One object of an image: what reading, writing and zeroing it means when it may not exist and a parent may show
//! through.
//!
//! An object of a clone that does not exist is what the parent has there. It comes to exist by copying: whole, once, and
//! without any change to what can be read, of the head or of any snapshot. So a copy may happen at any time, twice at
//! once, and be cut short by a crash. While a parent shows through, an object is never removed, but emptied.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use nacre_client::{Object, Op, SnapContext};

use crate::error::{Error, is_absent, is_present};
use crate::image::{Image, View};
use crate::object_map::Touch;

/// Where an object's parent part ends, in bytes of the object; 0: nothing of the parent shows.
fn under(view: &View, index: u64) -> u64 {
    view.parent.as_ref().map_or(0, |parent| view.layout.below(index, parent.overlap))
}

impl Image {
    fn data(&self, view: &View, index: u64) -> Object {
        self.object(index).keeping(&view.keeps)
    }

    /// Bytes of an object; what is missing at the end is zeros.
    pub(crate) async fn read_object(&self, view: &View, index: u64, at: u64, len: u64) -> Result<Bytes, Error> {
        let object = match view.at {
            Some(snapshot) => self.object(index).at(snapshot),
            None => self.object(index),
        };
        match object.read(at, len).await {
            Ok(bytes) => Ok(bytes),
            Err(error) if is_absent(&error) => self.read_parent(view, index, at, len).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn read_parent(&self, view: &View, index: u64, at: u64, len: u64) -> Result<Bytes, Error> {
        let end = under(view, index).min(at + len);
        match &view.parent {
            Some(parent) if at < end => {
                let mut places = view.layout.places(index, at, end - at);
                let (first, second) = (places.next(), places.next());
                if let (Some(only), None) = (first, second) {
                    return parent.image.read_boxed(only.offset, only.len).await;
                }
                let all = first.into_iter().chain(second).chain(places);
                let reads = try_join_all(all.map(|place| parent.image.read_boxed(place.offset, place.len))).await?;
                let mut whole = BytesMut::with_capacity(usize::try_from(end - at).unwrap_or(0));
                reads.iter().for_each(|part| whole.extend_from_slice(part));
                Ok(whole.freeze())
            }
            _ => Ok(Bytes::new()),
        }
    }

    /// Writes into an object.
    pub(crate) async fn write_object(&self, view: &View, index: u64, at: u64, data: Bytes) -> Result<(), Error> {
        let under = under(view, index);
        let covers = under == 0 || (at == 0 && data.len() as u64 >= under);
        let write = Op::Write { offset: at, data };
        let touch = self.touch(index).await?;
        if covers {
            self.data(view, index).execute(vec![write]).await?;
        } else {
            self.with_copy(view, index, vec![write]).await?;
        }
        touch.end();
        Ok(())
    }

    /// Writes several parts of an object, all or none.
    pub(crate) async fn write_parts(&self, view: &View, index: u64, parts: Vec<(u64, Bytes)>) -> Result<(), Error> {
        let writes = parts.into_iter().map(|(offset, data)| Op::Write { offset, data }).collect();
        let touch = self.touch(index).await?;
        if under(view, index) == 0 {
            self.data(view, index).execute(writes).await?;
        } else {
            self.with_copy(view, index, writes).await?;
        }
        touch.end();
        Ok(())
    }

    /// Carries out operations on an object that exists, if need be after its copy.
    async fn with_copy(&self, view: &View, index: u64, all: Vec<Op>) -> Result<(), Error> {
        let object = self.data(view, index);
        let mut ops = vec![Op::AssertExists];
        ops.extend(all);
        match object.execute(ops.clone()).await {
            Err(error) if is_absent(&error) => {
                self.copy_up(view, index, true).await?;
                Ok(object.execute(ops).await.map(drop)?)
            }
            done => Ok(done.map(drop)?),
        }
    }

    /// Makes an object of its own of what the parent shows there; of zeros only if it must exist.
    pub(crate) async fn copy_up(&self, view: &View, index: u64, must: bool) -> Result<(), Error> {
        let len = under(view, index);
        let data = self.read_parent(view, index, 0, len).await?;
        let fill = if data.iter().all(|byte| *byte == 0) {
            if !must {
                return Ok(());
            }
            Op::Create { exclusive: true }
        } else {
            Op::Write { offset: 0, data }
        };
        // Under all snapshots that see just the same of the parent, it may lie as if it had always been there; then they
        // need the parent no more either. Otherwise they keep looking through.
        let same = |snap: &nacre_client::class::image::Snap| {
            let shows = |parent: &nacre_client::class::image::Parent| view.layout.below(index, parent.overlap) == len;
            snap.parent.as_ref().is_some_and(|parent| shows(parent) && view.is_parent(parent))
        };
        let keeps =
            if view.held.snaps.iter().all(same) { Arc::new(SnapContext::default()) } else { Arc::clone(&view.keeps) };
        match self.object(index).keeping(&keeps).execute(vec![Op::AssertAbsent, fill]).await {
            Err(error) if !is_present(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes a range of an object read as zeros, and frees what it can. If that removed the object, [`Image::gone`] is to
    /// hear of it.
    pub(crate) async fn zero_object(
        &self,
        view: &View,
        index: u64,
        at: u64,
        len: u64,
    ) -> Result<Option<Touch<'_>>, Error> {
        let under = under(view, index);
        if under <= at && !self.may_exist(view, index).await? {
            return Ok(None);
        }
        let touch = self.touch(index).await?;
        if self.zero_touched(view, index, at, len, under).await? {
            return Ok(Some(touch));
        }
        touch.end();
        Ok(None)
    }

    async fn zero_touched(&self, view: &View, index: u64, at: u64, len: u64, under: u64) -> Result<bool, Error> {
        let last = view.layout.below(index, view.size);
        let object = self.data(view, index);
        if at == 0 && len >= last {
            return match under {
                0 => object.remove().await.or_else(passed_over).map(|()| true).map_err(Error::from),
                _ => {
                    let empty = vec![Op::Create { exclusive: false }, Op::Truncate { size: 0 }];
                    Ok(object.execute(empty).await.map(|_| false)?)
                }
            };
        }
        let zero = Op::Zero { offset: at, len };
        if under <= at {
            // Nothing of the parent lies there: if the object is absent, the range is zeros already.
            object.execute(vec![zero]).await.map(drop).or_else(passed_over)?;
        } else {
            self.with_copy(view, index, vec![zero]).await?;
        }
        Ok(false)
    }

    /// Takes an object back to a snapshot.
    pub(crate) async fn revert_object(&self, view: &View, index: u64, to: nacre_client::SnapId) -> Result<(), Error> {
        let object = self.data(view, index);
        object.execute(vec![Op::Rollback { snap: to }]).await.map(drop).or_else(passed_over).map_err(Error::from)
    }

    /// How much an object holds; none if it does not exist.
    pub(crate) async fn stored(&self, view: &View, index: u64) -> Result<Option<nacre_client::Stat>, Error> {
        let object = match view.at {
            Some(snapshot) => self.object(index).at(snapshot),
            None => self.object(index),
        };
        match object.stat().await {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is not there need not go.
fn passed_over(error: nacre_client::Error) -> Result<(), nacre_client::Error> {
    if is_absent(&error) { Ok(()) } else { Err(error) }
}

/// Bytes with zeros behind them up to a length.
pub(crate) fn padded(bytes: Bytes, len: usize) -> Bytes {
    if bytes.len() >= len {
        return bytes;
    }
    let mut whole = BytesMut::with_capacity(len);
    whole.extend_from_slice(&bytes);
    whole.resize(len, 0);
    whole.freeze()
}
