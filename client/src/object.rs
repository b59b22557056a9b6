//! Pools and objects, as a user writes them.

use std::sync::Arc;

use bytes::Bytes;
use nacre_crush::pg::object_hash;
use nacre_pg::op::{Op, OpResult, SnapContext};
use nacre_proto::ids::{ObjectId, OsdId, PgId, PoolId, SnapId, Version};

use crate::cluster::{Chart, Cluster};
use crate::error::Error;

/// A pool, or a namespace of it.
#[derive(Clone, Debug)]
pub struct Pool {
    cluster: Cluster,
    id: PoolId,
    name: String,
    namespace: Bytes,
}

/// What a vector answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The object's version afterwards.
    pub version: Version,
    /// One result for each operation.
    pub results: Vec<OpResult>,
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its length in bytes.
    pub size: u64,
    /// Its version.
    pub version: Version,
}

impl Pool {
    pub(crate) fn new(cluster: Cluster, id: PoolId, name: &str) -> Pool {
        Pool { cluster, id, name: name.to_owned(), namespace: Bytes::new() }
    }

    /// Its number.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A namespace of it: names in one do not meet those in another.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Pool {
        Pool { namespace: Bytes::copy_from_slice(namespace.as_bytes()), ..self.clone() }
    }

    /// The namespace of it; empty is the one without a name.
    pub fn namespace_name(&self) -> &[u8] {
        &self.namespace
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// An object of it, whether or not it exists.
    pub fn object(&self, name: impl Into<Bytes>) -> Object {
        let name = name.into();
        let hash = object_hash(&self.namespace, &name);
        let oid = ObjectId { pool: self.id, hash, namespace: self.namespace.clone(), name, snap: SnapId::HEAD };
        Object { cluster: self.cluster.clone(), oid, snapc: Arc::default() }
    }

    /// Its objects, page by page, in the order of their placement hashes.
    pub fn list(&self) -> Listing {
        Listing { pool: self.clone(), seed: 0, after: None, ended: false }
    }
}

/// A walk over the objects of a pool. What is made or removed meanwhile may or may not be seen; all else is seen once.
#[derive(Clone, Debug)]
pub struct Listing {
    pool: Pool,
    seed: u32,
    after: Option<ObjectId>,
    ended: bool,
}

impl Listing {
    /// The names of the next page; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let inner = &self.pool.cluster.0;
        while !self.ended {
            let pg = PgId { pool: self.pool.id, seed: self.seed };
            let (page, next) = inner.list(pg, self.after.take()).await?;
            self.after = next;
            if self.after.is_none() {
                self.seed += 1;
                let pool = inner.chart().and_then(|chart| chart.map.pools.get(&self.pool.id).map(|pool| pool.pg_num));
                self.ended = pool.is_none_or(|pg_num| self.seed >= pg_num);
            }
            let names: Vec<Bytes> =
                page.into_iter().filter(|oid| oid.namespace == self.pool.namespace).map(|oid| oid.name).collect();
            if !names.is_empty() {
                return Ok(Some(names));
            }
        }
        Ok(None)
    }
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    cluster: Cluster,
    oid: ObjectId,
    snapc: Arc<SnapContext>,
}

impl Object {
    /// The same object, whose writes keep these snapshots.
    #[must_use]
    pub fn keeping(self, snapshots: &Arc<SnapContext>) -> Object {
        Object { snapc: Arc::clone(snapshots), ..self }
    }

    /// The object as a snapshot saw it: to be read only.
    #[must_use]
    pub fn at(mut self, snapshot: SnapId) -> Object {
        self.oid.snap = snapshot;
        self
    }

    /// How it is named in the cluster: what [`Op::CopyFrom`] takes.
    pub fn id(&self) -> &ObjectId {
        &self.oid
    }

    /// Carries out a vector of operations: all of them or none, once.
    pub async fn execute(&self, ops: Vec<Op>) -> Result<Done, Error> {
        let (results, version) = self.cluster.0.execute(self.oid.clone(), &self.snapc, ops).await?;
        Ok(Done { version, results })
    }

    async fn one(&self, op: Op) -> Result<OpResult, Error> {
        let done = self.execute(vec![op]).await?;
        done.results.into_iter().next().ok_or_else(|| self.shape())
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn placed(&self, chart: &Chart) -> Option<(PgId, Option<OsdId>)> {
        chart.of(self.oid.pool, self.oid.hash)
    }

    pub(crate) fn shape(&self) -> Error {
        Error::Shape { object: String::from_utf8_lossy(&self.oid.name).into_owned() }
    }

    async fn data(&self, op: Op) -> Result<Bytes, Error> {
        match self.one(op).await? {
            OpResult::Data(data) => Ok(data),
            _ => Err(self.shape()),
        }
    }

    /// Bytes from an offset on; fewer at the end of the object.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        self.data(Op::Read { offset, len }).await
    }

    /// Writes bytes at an offset, growing the object as needed.
    pub async fn write(&self, offset: u64, data: impl Into<Bytes>) -> Result<(), Error> {
        self.one(Op::Write { offset, data: data.into() }).await.map(drop)
    }

    /// Replaces all bytes.
    pub async fn write_full(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.one(Op::WriteFull { data: data.into() }).await.map(drop)
    }

    /// Writes at the end.
    pub async fn append(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.one(Op::Append { data: data.into() }).await.map(drop)
    }

    /// Size and version.
    pub async fn stat(&self) -> Result<Stat, Error> {
        match self.one(Op::Stat).await? {
            OpResult::Stat { size, version } => Ok(Stat { size, version }),
            _ => Err(self.shape()),
        }
    }

    /// Removes it.
    pub async fn remove(&self) -> Result<(), Error> {
        self.one(Op::Remove).await.map(drop)
    }

    /// One attribute.
    pub async fn xattr(&self, name: impl Into<Bytes>) -> Result<Bytes, Error> {
        self.data(Op::GetXattr { name: name.into() }).await
    }

    /// Sets an attribute.
    pub async fn set_xattr(&self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        self.one(Op::SetXattr { name: name.into(), value: value.into() }).await.map(drop)
    }

    /// Sets entries of its ordered map.
    pub async fn omap_set(&self, entries: Vec<(Bytes, Bytes)>) -> Result<(), Error> {
        self.one(Op::OmapSet { entries }).await.map(drop)
    }

    /// Entries of its ordered map after a key, and whether more follow.
    pub async fn omap(&self, after: Option<Bytes>, max: u32) -> Result<(Vec<(Bytes, Bytes)>, bool), Error> {
        match self.one(Op::OmapRange { after, prefix: Bytes::new(), max }).await? {
            OpResult::Pairs { pairs, more } => Ok((pairs, more)),
            _ => Err(self.shape()),
        }
    }
}
