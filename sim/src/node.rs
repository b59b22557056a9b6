//! One OSD: the shell around its cores. It keeps their store, feeds maps in order, holds back what is ahead of its map,
//! and turns outputs into events of the world. The real daemon does the same with threads and sockets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nacre_pg::io::{ReadFault, ReadItem, ReadValue, Time, TxnId};
use nacre_pg::msg::PeerMsg;
use nacre_pg::object::INFO_XATTR;
use nacre_pg::op::ClientOp;
use nacre_pg::state::Config;
use nacre_pg::{PlacementGroup, Stored};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, Version};
use nacre_store::{MemoryStore, ObjectStore};

use crate::map::{Map, Maps};

/// Transactions that became durable, in order; filled by the store's completions.
pub type Durable = Arc<Mutex<Vec<(PgId, u64, TxnId)>>>;

/// What waits until a map has come.
#[derive(Clone, Debug)]
pub enum Early {
    /// From a peer.
    Peer(OsdId, PgId, PeerMsg),
    /// From a client.
    Op(PgId, ClientOp),
}

/// One OSD.
pub struct Node {
    /// Its number.
    pub id: OsdId,
    /// Its settings.
    pub cfg: Arc<Config>,
    /// Its disk.
    pub store: MemoryStore,
    /// Its process runs.
    pub running: bool,
    /// Counts runs, so that events of an old one are recognised.
    pub run: u64,
    /// When this run began, by its clock.
    pub began: Time,
    /// The newest map it has.
    pub epoch: Epoch,
    /// Its cores, each with the number of its own run (a pg may be removed and made again).
    pub pgs: BTreeMap<PgId, (u64, PlacementGroup)>,
    /// Counts cores.
    pub next_core: u64,
    /// What became durable and was not told yet.
    pub durable: Durable,
    /// A commit of the store is scheduled.
    pub committing: bool,
    /// Waiting for a map.
    pub early: VecDeque<(Epoch, Early)>,
    /// Collections whose removal waits to be durable.
    pub leaving: BTreeMap<PgId, TxnId>,
    /// Its disk was replaced, and no map says so yet.
    pub newborn: bool,
    /// Its scheduler's slots.
    pub slots: Vec<crate::slots::Slot>,
    /// Its clock: offset and rate in millionths.
    pub clock: (u64, u64),
}

impl Node {
    /// With an empty disk.
    pub fn new(id: OsdId, cfg: Arc<Config>, clock: (u64, u64)) -> Node {
        Node {
            id,
            cfg,
            store: MemoryStore::default(),
            running: true,
            run: 1,
            began: Time(clock.0),
            epoch: Epoch(0),
            pgs: BTreeMap::new(),
            next_core: 1,
            durable: Arc::default(),
            committing: false,
            early: VecDeque::new(),
            leaving: BTreeMap::new(),
            newborn: false,
            slots: Vec::new(),
            clock,
        }
    }

    /// Its own time, at a true one.
    pub fn now(&self, at: u64) -> Time {
        Time(self.clock.0 + (u128::from(at) * u128::from(self.clock.1) / 1_000_000) as u64)
    }

    /// The true time at which its clock shows `at`.
    pub fn when(&self, at: Time) -> u64 {
        (u128::from(at.0.saturating_sub(self.clock.0)) * 1_000_000 / u128::from(self.clock.1)) as u64 + 2
    }

    /// Power is lost: of what was not durable, so many bytes had reached the disk.
    pub fn crash(&mut self, bytes: u64) {
        self.store = self.store.crash(bytes);
        self.running = false;
        self.run += 1;
        self.pgs.clear();
        self.durable = Arc::default();
        self.committing = false;
        self.early.clear();
        self.leaving.clear();
        self.slots.clear();
    }

    /// What the store holds of a pg.
    pub fn stored(&self, pg: PgId) -> Stored {
        let meta = self.store.meta_list(pg).unwrap_or_default();
        let log = self.store.log(pg, Version::default(), usize::MAX).unwrap_or_default();
        Stored { meta, log: log.into_iter().map(|(_, e)| e).collect() }
    }

    /// Starts again: loads every pg of the disk. Cores take part in maps after `floor` only.
    pub fn restart(&mut self, maps: &Maps, at: u64, floor: Epoch) -> Result<(), String> {
        self.running = true;
        self.epoch = floor;
        let now = self.now(at);
        self.began = now;
        for pg in self.store.collections().unwrap_or_default() {
            let stored = self.stored(pg);
            let epoch = PlacementGroup::stored_epoch(&stored).map_err(|e| format!("{} pg {pg}: {e}", self.id))?;
            let map = maps.get(epoch).ok_or_else(|| format!("{} pg {pg}: no map {epoch}", self.id))?;
            let core =
                PlacementGroup::load(&stored, self.id, Arc::clone(&self.cfg), Arc::new(map.view(pg)), floor, now)
                    .map_err(|e| format!("{} pg {pg}: {e}", self.id))?;
            self.next_core += 1;
            self.pgs.insert(pg, (self.next_core, core));
        }
        Ok(())
    }

    /// Makes a core for a pg that is not here.
    pub fn add(&mut self, core: PlacementGroup) {
        self.next_core += 1;
        self.pgs.insert(core.id(), (self.next_core, core));
    }

    /// Answers a read.
    pub fn read(&self, pg: PgId, oid: Option<&ObjectId>, items: &[ReadItem]) -> Result<Vec<ReadValue>, ReadFault> {
        items.iter().map(|item| self.read_one(pg, oid, item)).collect()
    }

    fn read_one(&self, pg: PgId, oid: Option<&ObjectId>, item: &ReadItem) -> Result<ReadValue, ReadFault> {
        let s = &self.store;
        let fault = |_| ReadFault;
        let Some(oid) = oid else {
            let ReadItem::List { after, max } = item else { return Err(ReadFault) };
            let list = s.list(pg, after.as_ref(), *max as usize).map_err(fault)?;
            let more = list.len() == *max as usize;
            let info = |o: &ObjectId| s.xattr(pg, o, INFO_XATTR).ok().flatten().unwrap_or_default();
            return Ok(ReadValue::List(list.into_iter().map(|o| (o.clone(), info(&o))).collect(), more));
        };
        let here = s.stat(pg, oid).map_err(fault)?;
        Ok(match item {
            ReadItem::Meta => ReadValue::Meta(here.map(|h| h.size)),
            ReadItem::Xattrs if here.is_none() => ReadValue::Pairs(Vec::new(), false),
            ReadItem::Xattrs => ReadValue::Pairs(s.xattrs(pg, oid).map_err(fault)?, false),
            ReadItem::Extent { .. } | ReadItem::OmapHeader if here.is_none() => ReadValue::Data(Bytes::new()),
            ReadItem::Extent { offset, len } => ReadValue::Data(s.read_flat(pg, oid, *offset, *len).map_err(fault)?),
            ReadItem::OmapHeader => ReadValue::Data(s.omap_header(pg, oid).map_err(fault)?),
            ReadItem::OmapKeys(_) | ReadItem::OmapRange { .. } if here.is_none() => ReadValue::Pairs(Vec::new(), false),
            ReadItem::OmapKeys(keys) => ReadValue::Pairs(s.omap_get(pg, oid, keys).map_err(fault)?, false),
            ReadItem::OmapRange { after, max } => {
                let mut from = after.clone().map(Vec::from).unwrap_or_default();
                if after.is_some() {
                    from.push(0);
                }
                let list = s.omap_list(pg, oid, &from, *max as usize).map_err(fault)?;
                let more = list.len() == *max as usize;
                ReadValue::Pairs(list, more)
            }
            ReadItem::List { .. } => return Err(ReadFault),
        })
    }

    /// Is every pg of this osd up to its map.
    pub fn view(&self, map: &Map, pg: PgId) -> Arc<nacre_pg::view::View> {
        Arc::new(map.view(pg))
    }
}
