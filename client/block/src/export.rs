//! Images as NBD volumes: a [`Shelf`] opens by name what clients ask for and keeps it for the next who asks.
//!
//! Names are `IMAGE` or `IMAGE@SNAPSHOT` of one pool or namespace, or `POOL/IMAGE`, `POOL/NAMESPACE/IMAGE`. Snapshots and
//! shelves that only read give volumes that cannot be written. An image that is written has a cluster handle, and so a
//! session, of its own: fencing it touches no other image of the same server. It stays open when the last client leaves,
//! but then goes to whoever asks for it; the next client opens it anew.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use nacre_client::{Cluster, OpError};
use nacre_nbd::volume::Reply;
use nacre_nbd::{Catalog, Extent, Fault, Listing, Volume};
use tokio::sync::Mutex;

use crate::directory;
use crate::error::Error;
use crate::image::{Image, Use};

/// How a shelf comes by a new handle on the cluster.
pub type Connect = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Cluster, nacre_client::Error>> + Send>> + Send + Sync;

/// What a shelf offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The pool of names without one; also the only one listed.
    pub pool: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Only these names; empty: all.
    pub only: Vec<String>,
    /// What an image is opened for.
    pub usage: Use,
    /// Bytes of each image that may be answered before they are durable; 0: none.
    pub write_back: u64,
}

/// An image that is open, and by how many.
struct Open {
    image: Image,
    clients: AtomicUsize,
}

/// What is told of each image that is opened, with the name it was asked for by.
pub type Told = dyn Fn(&str, &Image) + Send + Sync;

/// Images by name.
pub struct Shelf {
    offer: Offer,
    told: Box<Told>,
    cluster: Cluster,
    connect: Box<Connect>,
    open: Mutex<BTreeMap<String, Arc<Open>>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({:?})", self.offer)
    }
}

/// The parts of a name.
#[derive(Debug, PartialEq, Eq)]
struct Spot<'a> {
    pool: Option<&'a str>,
    namespace: Option<&'a str>,
    image: &'a str,
    snapshot: Option<&'a str>,
}

fn spot(name: &str) -> Option<Spot<'_>> {
    let (path, snapshot) = match name.split_once('@') {
        Some((path, snapshot)) => (path, Some(snapshot)),
        None => (name, None),
    };
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [image] => Some(Spot { pool: None, namespace: None, image, snapshot }),
        [pool, image] => Some(Spot { pool: Some(pool), namespace: None, image, snapshot }),
        [pool, namespace, image] => Some(Spot { pool: Some(pool), namespace: Some(namespace), image, snapshot }),
        _ => None,
    }
    .filter(|spot| !spot.image.is_empty())
}

impl Shelf {
    /// A shelf on a cluster.
    pub fn new(offer: Offer, cluster: Cluster, connect: Box<Connect>, told: Box<Told>) -> Shelf {
        Shelf { offer, told, cluster, connect, open: Mutex::default() }
    }

    async fn find(&self, name: &str) -> Result<Option<Image>, Error> {
        let Some(spot) = spot(name) else { return Ok(None) };
        let Some(pool) = spot.pool.or(self.offer.pool.as_deref()) else { return Ok(None) };
        let namespace = match (spot.pool, spot.namespace) {
            (_, Some(namespace)) => namespace,
            (Some(_), None) => "",
            (None, None) => &self.offer.namespace,
        };
        let writes = self.offer.usage != Use::Read && spot.snapshot.is_none();
        let cluster = if writes { (self.connect)().await? } else { self.cluster.clone() };
        let pool = cluster.pool(pool).await?.namespace(namespace);
        let image = match spot.snapshot {
            Some(snapshot) => Image::open_snapshot(&pool, spot.image, snapshot).await?,
            None => Image::open_for(&pool, spot.image, self.offer.usage).await?,
        };
        if writes {
            image.write_back(self.offer.write_back);
        } else {
            // Of a snapshot, only the limits change.
            image.listen().await?;
        }
        Ok(Some(image))
    }

    async fn volume(&self, name: &str) -> Result<Option<Arc<dyn Volume>>, Error> {
        if !self.offer.only.is_empty() && !self.offer.only.iter().any(|only| only == name) {
            return Ok(None);
        }
        let mut open = self.open.lock().await;
        if let Some(known) = open.get(name) {
            // One that is lost is of use to nobody who comes now.
            if known.image.is_lost() {
                open.remove(name);
            } else {
                return Ok(Some(known.volume()));
            }
        }
        let Some(image) = self.find(name).await? else { return Ok(None) };
        (self.told)(name, &image);
        let made = Arc::new(Open { image, clients: AtomicUsize::new(0) });
        open.insert(name.to_owned(), Arc::clone(&made));
        Ok(Some(made.volume()))
    }

    async fn names(&self) -> Result<Vec<Listing>, Error> {
        if !self.offer.only.is_empty() {
            let line = |name: &String| Listing { name: name.clone(), description: String::new() };
            return Ok(self.offer.only.iter().map(line).collect());
        }
        let Some(pool) = &self.offer.pool else { return Ok(Vec::new()) };
        let pool = self.cluster.pool(pool).await?.namespace(&self.offer.namespace);
        let line = |entry: directory::Entry| Listing { name: entry.name, description: String::new() };
        Ok(directory::list(&pool).await?.into_iter().map(line).collect())
    }

    /// Ends all: every image is let go.
    pub async fn close(&self) {
        for (name, open) in std::mem::take(&mut *self.open.lock().await) {
            if let Err(error) = open.image.close().await {
                tracing::warn!(image = name, %error, "the image was not let go; who opens it next takes it over");
            }
        }
    }

    /// The images that are open, with the number of their clients.
    pub async fn opened(&self) -> Vec<(String, Image, usize)> {
        let open = self.open.lock().await;
        let line = |(name, open): (&String, &Arc<Open>)| {
            (name.clone(), open.image.clone(), open.clients.load(Ordering::Relaxed))
        };
        open.iter().map(line).collect()
    }
}

impl Open {
    fn volume(self: &Arc<Open>) -> Arc<dyn Volume> {
        if self.clients.fetch_add(1, Ordering::AcqRel) == 0 {
            self.image.set_yields(false);
        }
        Arc::new(Client { image: self.image.clone(), open: Arc::downgrade(self) })
    }
}

/// An image as a volume of its own.
pub fn volume(image: Image) -> Arc<dyn Volume> {
    Arc::new(Client { image, open: Weak::new() })
}

/// An image as one client sees it. Its size is always the image's, whatever it was when the client came.
struct Client {
    image: Image,
    open: Weak<Open>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(open) = self.open.upgrade()
            && open.clients.fetch_sub(1, Ordering::AcqRel) == 1
        {
            open.image.set_yields(true);
        }
    }
}

/// What a client can be told of an error; the rest stands in the log.
fn fault(error: &Error) -> Fault {
    let fault = match error {
        Error::ReadOnly { .. } => Fault::NotPermitted,
        Error::Bounds { .. } => Fault::Invalid,
        Error::Lost { .. } => Fault::ShuttingDown,
        Error::Cluster(nacre_client::Error::Object { source: OpError::Full { .. }, .. }) => Fault::NoSpace,
        _ => Fault::Io,
    };
    tracing::warn!(%error, "a request of a client failed");
    fault
}

fn told<T>(done: Result<T, Error>) -> Result<T, Fault> {
    done.map_err(|error| fault(&error))
}

/// The same of what would store something: past the end, that the image lost since it was looked, there is no room.
fn grown<T>(done: Result<T, Error>) -> Result<T, Fault> {
    done.map_err(|error| match (&error, fault(&error)) {
        (Error::Bounds { .. }, _) => Fault::NoSpace,
        (_, fault) => fault,
    })
}

impl Volume for Client {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_only(&self) -> bool {
        self.image.writable().is_err()
    }

    fn read(&self, offset: u64, len: u32) -> Reply<'_, Bytes> {
        Box::pin(async move { told(self.image.read(offset, u64::from(len)).await) })
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Reply<'_, ()> {
        Box::pin(async move {
            grown(self.image.write(offset, data).await)?;
            // Without write-back it is durable already.
            if fua { told(self.image.flush().await) } else { Ok(()) }
        })
    }

    fn zero(&self, offset: u64, len: u64, _keep: bool, _fast: bool, _fua: bool) -> Reply<'_, ()> {
        // No room is kept for anybody, and zeros are never written out.
        Box::pin(async move { grown(self.image.zero(offset, len).await) })
    }

    fn trim(&self, offset: u64, len: u64, _fua: bool) -> Reply<'_, ()> {
        Box::pin(async move { told(self.image.zero(offset, len).await) })
    }

    fn flush(&self) -> Reply<'_, ()> {
        Box::pin(async move { told(self.image.flush().await) })
    }

    fn extents(&self, offset: u64, len: u64, most: usize) -> Reply<'_, Vec<Extent>> {
        Box::pin(async move {
            let runs = told(self.image.extents(offset, len, most).await)?;
            Ok(runs.into_iter().map(|(len, stored)| Extent { len, hole: !stored }).collect())
        })
    }
}

impl Catalog for Shelf {
    fn list(&self) -> Reply<'_, Vec<Listing>> {
        Box::pin(async move { told(self.names().await) })
    }

    fn open<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Arc<dyn Volume>>> {
        Box::pin(async move {
            match self.volume(name).await {
                Err(Error::NoImage { .. } | Error::NoSnap { .. }) => Ok(None),
                Err(Error::Cluster(nacre_client::Error::NoPool { .. })) => Ok(None),
                done => told(done),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_exports_have_up_to_four_parts() {
        let plain = Spot { pool: None, namespace: None, image: "a", snapshot: None };
        assert_eq!(spot("a"), Some(plain));
        let all = Spot { pool: Some("p"), namespace: Some("n"), image: "a", snapshot: Some("s") };
        assert_eq!(spot("p/n/a@s"), Some(all));
        assert_eq!(spot("p/n/m/a"), None);
        assert_eq!(spot(""), None);
        assert_eq!(spot("p/"), None);
    }
}
