//! Names of images, and the trash: two objects of each pool and namespace with ordered maps.
//!
//! Every change is one guarded vector on one object. An entry is made after the header it points to, and removed before
//! it: a crash between leaves an object that nobody finds, never a name that leads nowhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nacre_client::{Compare, Object, Op, Pool, class};

use crate::error::{Error, is_absent, is_guard};

fn names(pool: &Pool) -> Object {
    pool.object("block.directory")
}

fn trash(pool: &Pool) -> Object {
    pool.object("block.trash")
}

/// Is it a name for an image or snapshot.
pub(crate) fn check(what: &'static str, name: &str) -> Result<(), Error> {
    let odd = |c: char| c == '@' || c == '/' || c.is_control();
    if name.is_empty() || name.len() > class::image::NAME_MAX || name.contains(odd) {
        return Err(Error::Name { what, name: name.to_owned() });
    }
    Ok(())
}

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn number(name: &str, value: &[u8]) -> Result<u64, Error> {
    let what = || format!("the directory's entry of image {name}");
    class::decode(value).ok_or_else(|| Error::Damaged { what: what(), why: "it is no number".into() })
}

/// An image as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
}

async fn pages(object: &Object) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        match object.omap(after, 1000).await {
            Ok((pairs, more)) => {
                all.extend(pairs);
                if !more {
                    return Ok(all);
                }
            }
            Err(error) if is_absent(&error) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The images of a pool or namespace, by name.
pub async fn list(pool: &Pool) -> Result<Vec<Entry>, Error> {
    let entry = |(name, value): (Bytes, Bytes)| {
        let name = String::from_utf8_lossy(&name).into_owned();
        let id = number(&name, &value)?;
        Ok(Entry { name, id })
    };
    pages(&names(pool)).await?.into_iter().map(entry).collect()
}

/// The number of an image.
pub async fn find(pool: &Pool, name: &str) -> Result<u64, Error> {
    let none = || Error::NoImage { name: name.to_owned() };
    let done = match names(pool).execute(vec![Op::OmapKeys { keys: vec![key(name)] }]).await {
        Ok(done) => done,
        Err(error) if is_absent(&error) => return Err(none()),
        Err(error) => return Err(error.into()),
    };
    match done.results.into_iter().next() {
        Some(nacre_client::OpResult::Pairs { pairs, .. }) => match pairs.into_iter().next() {
            Some((_, value)) => number(name, &value),
            None => Err(none()),
        },
        _ => Err(none()),
    }
}

fn free(name: &str) -> Op {
    Op::CompareOmap { key: key(name), how: Compare::Eq, value: Bytes::new() }
}

fn is(name: &str, id: u64) -> Op {
    Op::CompareOmap { key: key(name), how: Compare::Eq, value: class::encode(&id) }
}

fn taken(name: &str, error: nacre_client::Error) -> Error {
    if is_guard(&error) { Error::Exists { name: name.to_owned() } } else { error.into() }
}

/// Gives an image its name.
pub(crate) async fn add(pool: &Pool, name: &str, id: u64) -> Result<(), Error> {
    let set = Op::OmapSet { entries: vec![(key(name), class::encode(&id))] };
    let done = names(pool).execute(vec![Op::Create { exclusive: false }, free(name), set]).await;
    done.map(drop).map_err(|error| taken(name, error))
}

/// Gives an image another name.
pub async fn rename(pool: &Pool, from: &str, to: &str) -> Result<(), Error> {
    check("an image", to)?;
    let id = find(pool, from).await?;
    let ops = vec![
        free(to),
        is(from, id),
        Op::OmapRemove { keys: vec![key(from)] },
        Op::OmapSet { entries: vec![(key(to), class::encode(&id))] },
    ];
    names(pool).execute(ops).await.map(drop).map_err(|error| taken(to, error))
}

pub(crate) async fn remove(pool: &Pool, name: &str, id: u64) -> Result<(), Error> {
    let done = names(pool).execute(vec![is(name, id), Op::OmapRemove { keys: vec![key(name)] }]).await;
    done.map(drop).map_err(
        |error| {
            if is_guard(&error) { Error::NoImage { name: name.to_owned() } } else { error.into() }
        },
    )
}

/// An image in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// Its number.
    pub id: u64,
    /// The name it had.
    pub name: String,
    /// When it came there, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until when it is kept.
    pub until_ms: u64,
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn trash_key(id: u64) -> Bytes {
    Bytes::from(format!("{id:016x}"))
}

/// What is in the trash.
pub async fn trashed(pool: &Pool) -> Result<Vec<Trashed>, Error> {
    let read = |(id, value): (Bytes, Bytes)| {
        let text = String::from_utf8_lossy(&id).into_owned();
        let damaged = |why: &str| Error::Damaged { what: format!("the trash's entry {text}"), why: why.to_owned() };
        let number = u64::from_str_radix(&text, 16).map_err(|_| damaged("its key is no number"))?;
        let (name, (since_ms, until_ms)) = class::decode(&value).ok_or_else(|| damaged("its value is no record"))?;
        Ok(Trashed { id: number, name, since_ms, until_ms })
    };
    pages(&trash(pool)).await?.into_iter().map(read).collect()
}

/// Moves an image out of sight; it is kept for at least so long.
pub async fn discard(pool: &Pool, name: &str, keep: Duration) -> Result<u64, Error> {
    let id = find(pool, name).await?;
    let now = now_ms();
    let until = now.saturating_add(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
    let record = class::encode(&(name.to_owned(), (now, until)));
    trash(pool).execute(vec![Op::OmapSet { entries: vec![(trash_key(id), record)] }]).await?;
    remove(pool, name, id).await?;
    Ok(id)
}

/// Brings an image back out of the trash, under its old name or another.
pub async fn restore(pool: &Pool, id: u64, name: Option<&str>) -> Result<String, Error> {
    let found = trashed(pool).await?.into_iter().find(|one| one.id == id);
    let found = found.ok_or_else(|| Error::NoImage { name: format!("{id:016x} in the trash") })?;
    let name = name.unwrap_or(&found.name).to_owned();
    check("an image", &name)?;
    add(pool, &name, id).await?;
    forget(pool, id).await?;
    Ok(name)
}

pub(crate) async fn forget(pool: &Pool, id: u64) -> Result<(), Error> {
    match trash(pool).execute(vec![Op::OmapRemove { keys: vec![trash_key(id)] }]).await {
        Err(error) if !is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
}
