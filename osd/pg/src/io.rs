//! The one way in and the one way out: everything that can happen to a placement group, and everything it may ask of
//! the world, as data that can be printed and compared.
//!
//! Contract with the shell:
//! - maps come in without gaps from the epoch the pg last stored ([`crate::PlacementGroup::epoch`]);
//! - transactions of one pg become durable in the order submitted, a crash keeps a prefix; reads see what was submitted;
//! - a timer is never cancelled: an id no longer wanted is ignored here;
//! - outputs are carried out in order;
//! - all cores of an osd are given a map before any message of its epoch: else a child of a split could be made twice;
//! - a child that is born is given the map of its birth ([`crate::PlacementGroup::epoch`]) and then those after it;
//! - a slot that was asked for is granted in the end; one that is taken back stays asked for. Slots of a core that is
//!   dropped are free.

use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SessionId, SnapId};
use nacre_proto::txn::Transaction;

use crate::codec_enum;
use crate::log::ReqId;
use crate::msg::PeerMsg;
use crate::op::{ClientOp, OpId, Reply};
use crate::state::{Info, Stats};
use crate::view::View;

/// A moment of this osd's own steady clock, in nanoseconds. Never compared with another osd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// A span, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

impl Duration {
    /// From milliseconds.
    pub const fn ms(n: u64) -> Duration {
        Duration(n * 1_000_000)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(d.0))
    }
}

impl Time {
    /// The span from an earlier moment; zero if it is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

/// A transaction's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxnId(pub u64);
/// A read's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerId {
    /// The old primary's lease ends.
    OldLease { interval: u64 },
    /// A notify's answers are due.
    Notify { notify: u64 },
    /// A watcher was silent.
    Watch { watch: u64 },
    /// A piece of what is to be copied has not come.
    Copy { reqid: ReqId },
}

/// For whom something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A client or an operator waits for it.
    Client,
    /// Copies that are missing.
    Recovery,
    /// Clones of snapshots that were removed.
    Trim,
    /// Comparing copies.
    Scrub,
    /// What nobody waits for.
    BestEffort,
}

/// Slots an osd gives out sparingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKind {
    /// For recovering or backfilling others, at the primary.
    Local,
    /// For being recovered or backfilled.
    Remote,
    /// For a scrub.
    Scrub,
}
codec_enum!(SlotKind { 0 => Local {}, 1 => Remote {}, 2 => Scrub {} });

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The next epoch.
    Map(Arc<View>),
    /// A replica speaks.
    Peer { from: OsdId, msg: PeerMsg },
    /// The connection to a replica was lost and messages with it, in either direction.
    PeerReset { osd: OsdId },
    /// A client asks.
    Op(ClientOp),
    /// A transaction is on stable storage.
    Committed(TxnId),
    /// A read is done.
    ReadDone { id: ReadId, result: Result<Vec<ReadValue>, ReadFault> },
    /// A slot is ours; `holder` as in the request.
    Slot { kind: SlotKind, holder: OsdId, granted: bool },
    /// A timer rang.
    Timer(TimerId),
    /// The operator or the scheduler orders.
    Order(Order),
}

/// What an operator or a scheduler may order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// An operator's: compare the copies; deep: also their bytes. It needs no slot: who orders it waits for the answer and
    /// has weighed the load, and where scrubs by the clock are forbidden it is the only way to look.
    Scrub { deep: bool },
    /// The same, since its time has come: it waits for a slot.
    ScrubDue { deep: bool },
    /// Decide about objects of which no copy of the needed version is found.
    Unfound { revert: bool },
    /// A session is over: its watches end.
    SessionGone(SessionId),
}

/// What to read of one object (or, for a list, of the collection).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadItem {
    /// Its size, if it exists.
    Meta,
    /// All xattrs as stored.
    Xattrs,
    /// Bytes, short at the end.
    Extent { offset: u64, len: u64 },
    /// The omap's header.
    OmapHeader,
    /// Given keys.
    OmapKeys(Vec<Bytes>),
    /// Entries after a key.
    OmapRange { after: Option<Bytes>, max: u32 },
    /// Objects after one, the collection's order.
    List { after: Option<ObjectId>, max: u32 },
}

/// What was read, item by item. Of an absent object: no size, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadValue {
    /// Size.
    Meta(Option<u64>),
    /// Pairs by key; whether more follow.
    Pairs(Vec<(Bytes, Bytes)>, bool),
    /// Bytes, also of the header.
    Data(Bytes),
    /// Objects with their metadata record (the xattr `_`, empty if absent); whether more follow.
    List(Vec<(ObjectId, Bytes)>, bool),
}

/// The store could not read: a checksum failed, or the device did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFault;

/// Everything it may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to a replica.
    Send { to: OsdId, msg: PeerMsg },
    /// Say this to another pg.
    Carry { to: Way, msg: PeerMsg },
    /// Make this durable, all or nothing, and say so.
    Submit { id: TxnId, txn: Transaction },
    /// A client's change is in this transaction. For whoever watches operations; nothing follows from it.
    Ordered { op: OpId, txn: TxnId },
    /// Read an object (none: the collection). When it is done is the shell's to choose: what is not for a client may wait.
    Read { id: ReadId, oid: Option<ObjectId>, items: Vec<ReadItem>, class: Class },
    /// Answer a client.
    Reply { op: OpId, reply: Reply },
    /// Tell a watcher.
    Notify { session: SessionId, cookie: u64, notify: u64, oid: ObjectId, payload: Bytes },
    /// Ask the monitors or this osd's schedulers.
    Ask(Request),
    /// Wake me.
    Arm { id: TimerId, at: Time },
    /// How the pg is; metrics and the map's health come from this.
    Report(Box<Report>),
    /// A child was born of a split: it is the shell's to keep and to step. Its collection is made by a transaction
    /// submitted before this.
    Born(Box<crate::PlacementGroup>),
    /// The collection's removal was submitted: drop this value once it is durable.
    Gone,
    /// A state was left for another; for traces and for the table in the documents.
    Moved { from: &'static str, to: &'static str, by: &'static str },
}

/// To which pg, where: also to one of this osd, or to this one itself. It may be lost; who waits asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// That of this object, at its primary by the map.
    Object(ObjectId),
    /// This one.
    Pg(PgId, OsdId),
}

/// What is asked beyond the pg's peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Monitors: mark me as alive as a primary through the present interval.
    UpThru,
    /// Monitors: let these serve (empty: those of `up`).
    PgTemp(Vec<OsdId>),
    /// This osd's scheduler: a slot. `holder` says on whose behalf.
    Slot { kind: SlotKind, holder: OsdId, priority: u8 },
    /// It is free again (or no longer wanted).
    Release { kind: SlotKind, holder: OsdId },
    /// Monitors: this snapshot is trimmed here.
    Purged(Vec<SnapId>),
}

/// How the pg is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub pg: PgId,
    /// The state's name.
    pub state: &'static str,
    /// Every copy is where it should be, and equal.
    pub clean: bool,
    /// Objects of which no copy of the needed version is found.
    pub unfound: u64,
    /// One line: why it is not clean, what operations wait for, or that it is clean.
    pub why: String,
    /// What this replica knows of itself.
    pub info: Info,
    /// What scrubs found.
    pub findings: crate::Findings,
    /// Counts.
    pub stats: Stats,
    /// The map all this is under.
    pub epoch: Epoch,
    /// Copies still to be made.
    pub lacking: crate::Lacking,
}

/// What a step is given and where it leaves what it asks.
pub struct Step<'a> {
    /// Now, by this osd's clock.
    pub now: Time,
    /// Milliseconds since 1970 by this osd's wall clock. For the expiry of locks and the like, which a human would judge
    /// by; never for order, never for safety.
    pub wall_ms: u64,
    /// In order.
    pub out: &'a mut Vec<Output>,
}
