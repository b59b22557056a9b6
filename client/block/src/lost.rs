//! Headers without a name: what a crash between the two steps of making an image leaves, or the loss of a directory.
//!
//! One without data was never used and may go. One with data was an image: it is given a name again, and removed only
//! when that is asked for by its number.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nacre_client::{Pool, PoolId};

use crate::directory;
use crate::error::Error;
use crate::header::{DATA, HEAD, Header};
use crate::image::{Image, Use};

/// A header that no name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its number.
    pub id: u64,
    /// The name it was made under.
    pub name: String,
    /// Bytes of the image.
    pub size: u64,
    /// Objects that hold data of it.
    pub objects: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The numbers of the headers of a pool, and of the images that have data there, with how many objects.
async fn names(pool: &Pool) -> Result<(BTreeSet<u64>, BTreeMap<u64, u64>), Error> {
    let (mut heads, mut data): (BTreeSet<u64>, BTreeMap<u64, u64>) = Default::default();
    let mut listing = pool.list();
    while let Some(names) = listing.next().await? {
        for name in names {
            let Ok(name) = std::str::from_utf8(&name) else { continue };
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            if let Some(id) = name.strip_prefix(HEAD).and_then(number) {
                heads.insert(id);
            } else if let Some(id) = name.strip_prefix(DATA).and_then(|rest| number(rest.split('.').next()?)) {
                *data.entry(id).or_default() += 1;
            }
        }
    }
    Ok((heads, data))
}

/// The headers of a pool or namespace that neither a name nor the trash leads to, and that are older than this: a younger
/// one may be about to get its name. Looks at the name of every object of the pool.
pub async fn find(pool: &Pool, age: Duration) -> Result<Vec<Lost>, Error> {
    let (heads, data) = names(pool).await?;
    let mut elsewhere: BTreeMap<PoolId, BTreeMap<u64, u64>> = BTreeMap::new();
    // One that goes from the one to the other meanwhile is seen in one of them.
    let mut known: BTreeSet<u64> = directory::list(pool).await?.into_iter().map(|entry| entry.id).collect();
    known.extend(directory::trashed(pool).await?.into_iter().map(|one| one.id));
    known.extend(directory::list(pool).await?.into_iter().map(|entry| entry.id));
    let until = directory::now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let mut found = Vec::new();
    for id in heads.difference(&known) {
        let Ok(held) = Header::of(pool, *id).get().await else { continue };
        if held.image.created_ms <= until {
            let data = match held.image.data_pool {
                None => &data,
                Some(other) => {
                    if let Entry::Vacant(place) = elsewhere.entry(other) {
                        let found = pool.cluster().pool_by_id(other);
                        let found = found.map(|found| found.namespace(&String::from_utf8_lossy(pool.namespace_name())));
                        place.insert(match found {
                            Some(found) => names(&found).await?.1,
                            None => BTreeMap::new(),
                        });
                    }
                    elsewhere.get(&other).unwrap_or(&data)
                }
            };
            let objects = data.get(id).copied().unwrap_or(0);
            let (name, size, created_ms) = (held.image.name, held.image.size, held.image.created_ms);
            found.push(Lost { id: *id, name, size, objects, created_ms });
        }
    }
    Ok(found)
}

/// Gives one a name again: the one it was made under, or another.
pub async fn restore(pool: &Pool, id: u64, name: Option<&str>) -> Result<String, Error> {
    let held = Header::of(pool, id).get().await?;
    let name = name.unwrap_or(&held.image.name).to_owned();
    directory::check("an image", &name)?;
    directory::add(pool, &name, id).await?;
    Ok(name)
}

/// Removes one, with its data. Refused if it has snapshots, or if somebody writes it.
pub async fn remove(pool: &Pool, lost: &Lost) -> Result<(), Error> {
    let image = Image::open_id(pool, lost.id, &lost.name, None).await?;
    image.acquire(Use::Write).await?;
    let gone = crate::create::erase_nameless(pool, image.clone(), lost.objects > 0).await;
    if gone.is_err() {
        image.close().await?;
    }
    gone
}
