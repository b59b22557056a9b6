//! The log and the ballot, as openraft asks for them.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use nacre_mon_api::v1;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::async_runtime::OneshotSender;
use openraft::{OptionalSend, RaftLogReader};
use prost::Message;
use rocksdb::{IteratorMode, WriteBatch};

use super::record::{self, Kind};
use super::{BALLOT, COMMITTED, LOG, PURGED, Store, StoreError};
use crate::raft::{Ballot, Config, Entry, LogId, convert};

fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

impl Store {
    fn read_log_id(&self, kind: Kind, name: &[u8]) -> Result<Option<LogId>, StoreError> {
        let what = format!("{kind:?}");
        let Some(bytes) = self.get(kind, name)? else { return Ok(None) };
        let message = v1::LogId::decode(bytes).map_err(|error| self.senseless(&what, &error))?;
        convert::log_id_from(Some(message)).map_err(self.misread(&what))
    }

    fn read_ballot(&self) -> Result<Option<Ballot>, StoreError> {
        let Some(bytes) = self.get(Kind::Ballot, BALLOT)? else { return Ok(None) };
        let message = v1::Ballot::decode(bytes).map_err(|error| self.senseless("ballot", &error))?;
        convert::ballot_from(Some(message)).map(Some).map_err(self.misread("ballot"))
    }

    fn entry(&self, index: u64, value: &[u8]) -> Result<Entry, StoreError> {
        let what = format!("log entry {index}");
        let bytes = self.unframe(Kind::Entry, &key(index), value)?;
        let message = v1::Entry::decode(bytes).map_err(|error| self.senseless(&what, &error))?;
        let entry = convert::entry_from(message).map_err(self.misread(&what))?;
        if entry.log_id.index != index {
            return Err(self.senseless(&what, &format!("it is entry {}", entry.log_id.index)));
        }
        Ok(entry)
    }

    /// Entries in `[from, to)`, as many as there are; it is an error if one is missing between two others.
    fn entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, StoreError> {
        let start = key(from);
        let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
        let mut entries = Vec::new();
        let mut expected = None;
        for item in self.inner.db.iterator_cf(self.family(LOG)?, mode) {
            let (found, value) = item.map_err(|source| self.rocks(source))?;
            let index = found.as_ref().try_into().map(u64::from_be_bytes);
            let index = index.map_err(|_| self.senseless("log", &"a key that is no index"))?;
            if index >= to {
                break;
            }
            if let Some(expected) = expected
                && index != expected
            {
                return Err(self.senseless("log", &format!("entry {expected} is missing, the next is {index}")));
            }
            entries.push(self.entry(index, &value)?);
            expected = index.checked_add(1);
        }
        Ok(entries)
    }

    /// Reads the whole log once, so that a damaged entry is found when the monitor starts and not when a peer asks.
    pub fn verify(&self) -> Result<(), StoreError> {
        let first = self.read_log_id(Kind::Purged, PURGED)?.map_or(0, |id| id.index + 1);
        let entries = self.entries(0, u64::MAX)?;
        if let Some(oldest) = entries.first()
            && oldest.log_id.index != first
        {
            let found = oldest.log_id.index;
            return Err(self.senseless("log", &format!("it starts at entry {found}, {first} should be its first")));
        }
        let count = entries.len() as u64;
        let committed = self.read_log_id(Kind::Committed, COMMITTED)?;
        // A snapshot may have come before its entries were cut.
        let covered = self.snapshot()?.and_then(|snapshot| snapshot.meta.last_log_id).map_or(0, |id| id.index + 1);
        if let Some(committed) = committed
            && committed.index >= covered.max(first.saturating_add(count))
        {
            return Err(
                self.senseless("log", &format!("it ends before entry {}, known to be committed", committed.index))
            );
        }
        self.read_ballot()?;
        Ok(())
    }

    fn put_meta(&self, kind: Kind, name: &[u8], message: &impl Message) -> Result<WriteBatch, StoreError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.meta()?, name, record::encode(kind, name, &message.encode_to_vec()));
        Ok(batch)
    }

    pub(super) fn append_batch(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StoreError> {
        let family = self.family(LOG)?;
        let mut batch = WriteBatch::default();
        for entry in entries {
            let key = key(entry.log_id.index);
            let payload = convert::entry_to(&entry).encode_to_vec();
            batch.put_cf(family, key, record::encode(Kind::Entry, &key, &payload));
        }
        self.write(batch)
    }

    fn cut_after(&self, last: Option<LogId>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let from = last.map_or(0, |id| id.index + 1);
        batch.delete_range_cf(self.family(LOG)?, key(from), key(u64::MAX));
        self.write(batch)
    }

    fn cut_through(&self, id: &LogId) -> Result<(), StoreError> {
        let mut batch = self.put_meta(Kind::Purged, PURGED, &convert::log_id_to(id))?;
        batch.delete_range_cf(self.family(LOG)?, key(0), key(id.index + 1));
        self.write(batch)
    }

    /// Has the log begin behind `last`, durably: for a store made around a snapshot. The next term is above that of
    /// `last`, or entries would be appended that sort before it.
    pub fn begin_after(&self, last: &LogId) -> Result<(), StoreError> {
        self.cut_through(last)?;
        let ballot = Ballot { leader_id: last.leader_id, committed: false };
        self.write(self.put_meta(Kind::Ballot, BALLOT, &convert::ballot_to(&ballot))?)?;
        self.sync()
    }

    fn state(&self) -> Result<(Option<LogId>, Option<LogId>), StoreError> {
        let purged = self.read_log_id(Kind::Purged, PURGED)?;
        let last = match self.inner.db.iterator_cf(self.family(LOG)?, IteratorMode::End).next() {
            None => purged,
            Some(item) => {
                let (found, value) = item.map_err(|source| self.rocks(source))?;
                let index = found.as_ref().try_into().map(u64::from_be_bytes);
                let index = index.map_err(|_| self.senseless("log", &"a key that is no index"))?;
                Some(self.entry(index, &value)?.log_id)
            }
        };
        Ok((purged, last))
    }
}

impl<C: Config> RaftLogReader<C> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.entries(from, to)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, io::Error> {
        Ok(self.read_ballot()?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        // One message to a follower must stay far below what the transport takes.
        Ok(self.entries(start, end.min(start.saturating_add(256)))?)
    }
}

impl<C: Config> RaftLogStorage<C> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let (last_purged_log_id, last_log_id) = self.state()?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), io::Error> {
        self.write(self.put_meta(Kind::Ballot, BALLOT, &convert::ballot_to(vote))?)?;
        let (sender, done) = C::oneshot();
        self.when_durable(Box::new(move |result| drop(sender.send(result))));
        done.await.map_err(|_| io::Error::other("the committer dropped a ballot"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Not synced: it only spares work after a restart, and an older value is as true as a newer one.
        if let Some(id) = committed {
            self.write(self.put_meta(Kind::Committed, COMMITTED, &convert::log_id_to(&id))?)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read_log_id(Kind::Committed, COMMITTED)?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.append_batch(entries)?;
        self.when_durable(Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.cut_after(last_log_id)?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self.cut_through(&log_id)?)
    }
}
