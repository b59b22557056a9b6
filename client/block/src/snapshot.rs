//! Snapshots of an image: taken, renamed, removed, gone back to; and clones made independent.
//!
//! A snapshot is a number from the monitors and a line in the header. It freezes what the writer had written when it
//! took note of it: so it is taken only when the writer has said so.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nacre_client::Pool;
use nacre_client::SnapId;
use nacre_client::class::code;
use nacre_client::class::image::{Child, Snap};

use crate::directory;
use crate::error::{Error, refusal};
use crate::header::Header;
use crate::image::{ABREAST, Image, same};
use crate::object_map::{Change, parts};

impl Image {
    /// Its snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<Snap> {
        self.view().held.snaps.clone()
    }

    fn snap_named(&self, name: &str) -> Result<Snap, Error> {
        let found = self.view().held.snaps.iter().find(|snap| snap.name == name).cloned();
        found.ok_or_else(|| Error::NoSnap { image: self.name(), snap: name.to_owned() })
    }

    /// Takes a snapshot.
    pub async fn snapshot(&self, name: &str) -> Result<SnapId, Error> {
        directory::check("a snapshot", name)?;
        let id = self.begin_snapshot(name, Bytes::new()).await?;
        if !self.announce_to_writer().await? {
            self.undo_snapshot(id).await?;
            return Err(Error::WriterSilent { image: self.name(), undone: "the snapshot was not taken" });
        }
        Ok(id)
    }

    /// Enters a snapshot that nobody was told of yet.
    pub(crate) async fn begin_snapshot(&self, name: &str, group: Bytes) -> Result<SnapId, Error> {
        let id = self.0.data.make_snapshot().await?;
        if let Err(error) = self.0.header.snap_add(id, name, group).await {
            self.0.data.drop_snapshots(&[id]).await?;
            return Err(match refusal(&error) {
                Some(code::EXISTS) => Error::SnapExists { image: self.name(), snap: name.to_owned() },
                Some(code::CONDITION) => Error::Raced { image: self.name() },
                _ => error.into(),
            });
        }
        Ok(id)
    }

    pub(crate) async fn undo_snapshot(&self, id: SnapId) -> Result<(), Error> {
        self.0.header.snap_remove(id).await?;
        self.announce().await?;
        Ok(self.0.data.drop_snapshots(&[id]).await?)
    }

    /// Gives a snapshot another name.
    pub async fn rename_snapshot(&self, from: &str, to: &str) -> Result<(), Error> {
        directory::check("a snapshot", to)?;
        let snap = self.snap_named(from)?;
        match self.0.header.snap_rename(snap.id, to).await {
            Err(error) if refusal(&error) == Some(code::EXISTS) => {
                return Err(Error::SnapExists { image: self.name(), snap: to.to_owned() });
            }
            done => done?,
        }
        self.announce().await.map(drop)
    }

    /// Removes a snapshot.
    pub async fn remove_snapshot(&self, name: &str) -> Result<(), Error> {
        self.refresh().await?;
        let snap = self.snap_named(name)?;
        match self.0.header.snap_remove(snap.id).await {
            Err(error) if refusal(&error) == Some(code::BUSY) => {
                self.without_clones(&snap).await?;
                self.0.header.snap_remove(snap.id).await?;
            }
            done => done?,
        }
        self.announce().await?;
        self.0.data.drop_snapshots(&[snap.id]).await?;
        // Perhaps it was the last that looked through to a parent.
        let view = self.view();
        if let Some(parent) = &snap.parent {
            let head = view.held.image.parent.iter();
            let mut all = view.held.snaps.iter().filter_map(|snap| snap.parent.as_ref()).chain(head);
            if !all.any(|other| same(other, parent)) {
                self.leave(&self.0.pool, parent).await?;
            }
        }
        Ok(())
    }

    /// The clones of a snapshot, by pool and number.
    pub async fn children(&self, snapshot: SnapId) -> Result<Vec<Child>, Error> {
        let all = self.0.header.children().await?;
        Ok(all.into_iter().filter(|child| child.snap == snapshot).collect())
    }

    /// Refuses if a snapshot has clones.
    pub(crate) async fn without_clones(&self, snap: &Snap) -> Result<(), Error> {
        let left = self.heal_children(snap.id).await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::HasChildren { image: self.name(), snap: snap.name.clone(), children: left.join(", ") })
    }

    /// The clones of a snapshot that are still clones; entries of others, left by a crash, are removed.
    async fn heal_children(&self, snapshot: SnapId) -> Result<Vec<String>, Error> {
        let mut left = Vec::new();
        for child in self.children(snapshot).await? {
            let cluster = self.0.pool.cluster();
            let pool = cluster.pool_by_id(child.pool);
            let pool = pool.map(|pool| pool.namespace(&String::from_utf8_lossy(&child.namespace)));
            let still = match &pool {
                None => None,
                Some(pool) => match Header::of(pool, child.image).get().await {
                    Ok(held) => {
                        let head = held.image.parent.iter();
                        let mut all = held.snaps.iter().filter_map(|snap| snap.parent.as_ref()).chain(head);
                        all.any(|of| of.image == self.id() && of.snap == snapshot)
                            .then(|| format!("{}/{}", pool.name(), held.image.name))
                    }
                    Err(Error::Cluster(error)) if refusal(&error) == Some(code::ABSENT) => None,
                    Err(error) => return Err(error),
                },
            };
            match still {
                Some(name) => left.push(name),
                None => self.0.header.child_remove(&child).await?,
            }
        }
        Ok(left)
    }

    /// Makes the image what it was when the snapshot was taken. To be opened for writing; what was written since is lost.
    /// After a crash in the middle it is partly so; going back again completes it.
    pub async fn rollback(&self, name: &str, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        self.writable()?;
        self.trim().await?;
        let snap = self.snap_named(name)?;
        let before = self.view().size;
        {
            let _alone = self.0.gate.write().await;
            let _changing = self.changes(0, u64::MAX);
            self.settle().await?;
            self.0.header.revert(snap.id).await?;
            self.refresh_alone().await?;
            let view = self.view();
            let view = &view;
            let old = Image::open_id(&self.0.pool, self.id(), &self.name(), Some(snap.id)).await?;
            let then = old.view();
            let all = view.layout.objects(before.max(snap.size));
            for part in parts(0..all) {
                // What did not change since is as it was.
                let told = snap.id > view.held.image.map_since;
                let due = self.picked(view, part.clone(), |_, entry| !told || entry.changed >= snap.id).await?;
                self.change_all(&due, Change::Touched).await?;
                let back = due.iter().map(|index| async move { self.revert_object(view, *index, snap.id).await });
                stream::iter(back).buffer_unordered(ABREAST).try_collect::<()>().await?;
                let kept: BTreeSet<u64> = old.existing(&then, part.clone()).await?.into_iter().collect();
                let gone: Vec<u64> = due.into_iter().filter(|index| !kept.contains(index)).collect();
                self.change_all(&gone, Change::Gone).await?;
                progress(part.end, all);
            }
        }
        self.announce().await?;
        self.trim().await
    }

    /// Copies all that a clone still takes from its parent, and cuts it off. To be opened for writing.
    pub async fn flatten(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        self.writable()?;
        let view = self.view();
        let Some(parent) = view.held.image.parent.clone() else {
            return Err(Error::NoClone { image: self.name() });
        };
        let all = view.layout.objects(parent.overlap);
        let copies = (0..all).map(|index| async move {
            // A copy changes nothing that can be read: writes go on beside it. But not a change of the view: what a shrink
            // cuts off must not come back.
            let _in = self.0.gate.read().await;
            self.writable()?;
            let view = &self.view();
            let shows = view.parent.as_ref().is_some_and(|parent| view.layout.below(index, parent.overlap) > 0);
            if shows && self.stored(view, index).await?.is_none() {
                let touch = self.touch(index).await?;
                self.copy_up(view, index, false).await?;
                touch.end();
            }
            Ok::<_, Error>(())
        });
        let mut copies = stream::iter(copies).buffer_unordered(ABREAST);
        let mut done = 0;
        while copies.try_next().await?.is_some() {
            done += 1;
            progress(done, all);
        }
        drop(copies);
        self.0.header.orphan().await?;
        self.announce().await?;
        let pool: &Pool = &self.0.pool;
        if !self.view().held.snaps.iter().filter_map(|snap| snap.parent.as_ref()).any(|of| same(of, &parent)) {
            self.leave(pool, &parent).await?;
        }
        Ok(())
    }

    /// Sets and clears flags of the header.
    pub async fn set_flags(&self, set: u64, clear: u64) -> Result<(), Error> {
        self.0.header.flags(set, clear).await?;
        self.announce().await.map(drop)
    }
}
