//! The one snapshot a store keeps: what the log up to some entry has decided, encoded.

use bytes::Bytes;
use nacre_mon_api::v1;
use prost::Message;
use rocksdb::WriteBatch;

use super::record::{self, Kind};
use super::{SNAPSHOT, SNAPSHOT_META, Store, StoreError};
use crate::raft::{Snapshot, SnapshotMeta, convert};

impl Store {
    /// The snapshot, if one was ever made.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let Some(meta) = self.get(Kind::SnapshotMeta, SNAPSHOT_META)? else { return Ok(None) };
        let meta = v1::SnapshotMeta::decode(meta).map_err(|error| self.senseless("snapshot", &error))?;
        let meta = convert::meta_from(Some(meta)).map_err(self.misread("snapshot"))?;
        let snapshot = self.get(Kind::Snapshot, SNAPSHOT)?;
        let snapshot = snapshot.ok_or_else(|| self.senseless("snapshot", &"its bytes are missing"))?;
        Ok(Some(Snapshot { meta, snapshot }))
    }

    /// Replaces the snapshot; durable when this returns.
    pub fn put_snapshot(&self, meta: &SnapshotMeta, snapshot: &Bytes) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let head = convert::meta_to(meta).encode_to_vec();
        batch.put_cf(self.meta()?, SNAPSHOT_META, record::encode(Kind::SnapshotMeta, SNAPSHOT_META, &head));
        batch.put_cf(self.meta()?, SNAPSHOT, record::encode(Kind::Snapshot, SNAPSHOT, snapshot));
        self.write(batch)?;
        self.sync()
    }
}
