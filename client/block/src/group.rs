//! Groups: images whose snapshots are taken at one moment.
//!
//! A group is an entry in the object `block.groups` of a pool or namespace. For a snapshot of it all its writers are
//! asked to hold still; when all do, each image gets its snapshot, and they go on. A writer that goes on too early (it
//! holds still for a few seconds, not for ever) says so at the end, and then the snapshot is taken back on all of them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nacre_client::{Compare, Object, Op, Pool, PoolId, SnapId, class};

use crate::directory;
use crate::error::{Error, is_absent, is_guard};
use crate::image::Image;
use crate::owner::{HOLD, RELEASE, YES};

/// How long writers have to come to rest.
const REST: Duration = Duration::from_secs(5);
/// Images of one group.
const MOST: usize = 200;

/// An image of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its pool.
    pub pool: PoolId,
    /// Its namespace.
    pub namespace: Bytes,
    /// Its number.
    pub image: u64,
}

/// As it is kept: pool, namespace, image.
type Kept = (PoolId, (Bytes, u64));

fn object(pool: &Pool) -> Object {
    pool.object("block.groups")
}

fn key(group: &str) -> Bytes {
    Bytes::copy_from_slice(group.as_bytes())
}

fn missing(group: &str) -> Error {
    Error::NoImage { name: format!("group {group}") }
}

/// The groups of a pool or namespace, with their images.
pub async fn list(pool: &Pool) -> Result<Vec<(String, Vec<Member>)>, Error> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        match object(pool).omap(after, 100).await {
            Ok((pairs, more)) => {
                all.extend(pairs);
                if !more {
                    break;
                }
            }
            Err(error) if is_absent(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let read = |(name, raw): (Bytes, Bytes)| {
        let name = String::from_utf8_lossy(&name).into_owned();
        let what = format!("the entry of group {name}");
        let kept: Option<Vec<Kept>> = class::decode(&raw);
        let kept = kept.ok_or_else(|| Error::Damaged { what, why: "it is no list of images".into() })?;
        let member = |(pool, (namespace, image))| Member { pool, namespace, image };
        Ok((name, kept.into_iter().map(member).collect()))
    };
    all.into_iter().map(read).collect()
}

async fn members(pool: &Pool, group: &str) -> Result<Vec<Member>, Error> {
    let found = list(pool).await?.into_iter().find(|(name, _)| name == group);
    found.map(|(_, members)| members).ok_or_else(|| missing(group))
}

fn bytes(members: &[Member]) -> Bytes {
    let kept: Vec<Kept> = members.iter().map(|m| (m.pool, (m.namespace.clone(), m.image))).collect();
    class::encode(&kept)
}

/// Makes a group without images.
pub async fn create(pool: &Pool, group: &str) -> Result<(), Error> {
    directory::check("a group", group)?;
    let ops = vec![
        Op::Create { exclusive: false },
        Op::CompareOmap { key: key(group), how: Compare::Eq, value: Bytes::new() },
        Op::OmapSet { entries: vec![(key(group), bytes(&[]))] },
    ];
    object(pool)
        .execute(ops)
        .await
        .map(drop)
        .map_err(|error| if is_guard(&error) { Error::Exists { name: format!("group {group}") } } else { error.into() })
}

/// Removes a group; its images and their snapshots stay.
pub async fn remove(pool: &Pool, group: &str) -> Result<(), Error> {
    members(pool, group).await?;
    Ok(object(pool).execute(vec![Op::OmapRemove { keys: vec![key(group)] }]).await.map(drop)?)
}

async fn change(pool: &Pool, group: &str, change: impl Fn(&mut Vec<Member>)) -> Result<(), Error> {
    loop {
        let old = members(pool, group).await?;
        let mut new = old.clone();
        change(&mut new);
        if new.len() > MOST {
            let why = format!("a group has at most {MOST} images");
            return Err(Error::Size { what: format!("group {group}"), why });
        }
        let ops = vec![
            Op::CompareOmap { key: key(group), how: Compare::Eq, value: bytes(&old) },
            Op::OmapSet { entries: vec![(key(group), bytes(&new))] },
        ];
        match object(pool).execute(ops).await {
            Err(error) if is_guard(&error) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

fn member(image: &Image) -> Member {
    let namespace = Bytes::copy_from_slice(image.pool().namespace_name());
    Member { pool: image.pool().id(), namespace, image: image.id() }
}

/// Puts an image into a group; twice is once.
pub async fn add(pool: &Pool, group: &str, image: &Image) -> Result<(), Error> {
    let one = member(image);
    change(pool, group, |all| {
        if !all.contains(&one) {
            all.push(one.clone());
        }
    })
    .await
}

/// Takes an image out of a group.
pub async fn drop_member(pool: &Pool, group: &str, image: &Image) -> Result<(), Error> {
    let one = member(image);
    change(pool, group, |all| all.retain(|other| *other != one)).await
}

/// The images of a group, open to be read.
pub async fn open(pool: &Pool, group: &str) -> Result<Vec<Image>, Error> {
    let mut images = Vec::new();
    for member in members(pool, group).await? {
        let name = format!("{:016x} of group {group}", member.image);
        let found = pool.cluster().pool_by_id(member.pool).ok_or_else(|| Error::NoImage { name: name.clone() })?;
        let found = found.namespace(&String::from_utf8_lossy(&member.namespace));
        images.push(Image::open_id(&found, member.image, &name, None).await?);
    }
    Ok(images)
}

/// Tells all writers something; whether each that there is has agreed.
async fn tell(images: &[Image], payload: &'static [u8]) -> Result<(), Error> {
    let each = images.iter().map(|image| async move {
        let said = image.0.header.0.notify(payload, REST).await?;
        let Some(holder) = image.holder().await? else { return Ok(()) };
        let agreed = said.answers.iter().any(|((session, _), said)| *session == holder.session && &said[..] == YES);
        let undone = "the snapshot of the group was not taken";
        if agreed { Ok(()) } else { Err(Error::WriterSilent { image: image.name(), undone }) }
    });
    join_all(each).await.into_iter().collect()
}

/// Takes a snapshot of all images of a group at one moment.
pub async fn snapshot(pool: &Pool, group: &str, name: &str) -> Result<(), Error> {
    directory::check("a snapshot", name)?;
    let images = open(pool, group).await?;
    let mut taken: Vec<(&Image, SnapId)> = Vec::new();
    let done = async {
        tell(&images, HOLD).await?;
        for image in &images {
            let id = image.begin_snapshot(name, key(group)).await?;
            taken.push((image, id));
        }
        for image in &images {
            if !image.announce_to_writer().await? {
                let undone = "the snapshot of the group was not taken";
                return Err(Error::WriterSilent { image: image.name(), undone });
            }
        }
        Ok(())
    }
    .await;
    let released = tell(&images, RELEASE).await;
    let done = done.and(released);
    if done.is_err() {
        for (image, id) in taken {
            image.undo_snapshot(id).await?;
        }
    }
    done
}

/// The snapshots of a group, oldest first, each with how many of its images have it.
pub async fn snapshots(pool: &Pool, group: &str) -> Result<Vec<(String, usize)>, Error> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for image in open(pool, group).await? {
        for snap in image.snapshots().into_iter().filter(|snap| snap.group == key(group)) {
            match found.iter_mut().find(|(name, _)| *name == snap.name) {
                Some((_, count)) => *count += 1,
                None => found.push((snap.name, 1)),
            }
        }
    }
    Ok(found)
}

/// Removes a snapshot of a group from all images that have it; from none, if one of them has clones of it.
pub async fn remove_snapshot(pool: &Pool, group: &str, name: &str) -> Result<(), Error> {
    let mut due = Vec::new();
    for image in open(pool, group).await? {
        let snap = image.snapshots().into_iter().find(|snap| snap.name == name && snap.group == key(group));
        if let Some(snap) = snap {
            image.without_clones(&snap).await?;
            due.push(image);
        }
    }
    if due.is_empty() {
        return Err(Error::NoSnap { image: format!("group {group}"), snap: name.to_owned() });
    }
    for image in due {
        image.remove_snapshot(name).await?;
    }
    Ok(())
}
