//! What the primary keeps of an object it works on, and the operations in its queue.

use std::collections::VecDeque;

use nacre_proto::ids::{ObjectId, SnapId};

use super::OpIds;
use super::copy::CopyAsker;
use super::operate::exists;
use crate::exec::{Copied, Fetched};
use crate::log::ReqId;
use crate::object::{ObjectInfo, head_of};
use crate::op::{ClientOp, Op, OpError};

/// What the primary knows of an object it works on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    /// The head's metadata as the last ordered write leaves it.
    pub(super) known: Known,
    pub(super) queue: VecDeque<Box<Running>>,
    /// Reads that wait for the store.
    pub(super) readers: u32,
    /// A write is being executed.
    pub(super) executing: bool,
    /// Writes ordered and not yet safe.
    pub(super) writes: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Known {
    #[default]
    No,
    Asked,
    /// Nothing is stored under the name: none.
    Yes(Option<ObjectInfo>),
    Damaged,
}

/// An operation past admission.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(super) op: ClientOp,
    pub(super) ids: OpIds,
    pub(super) fetched: Fetched,
    /// The state whose bytes are being read.
    pub(super) reading: Option<ObjectId>,
    pub(super) writes: bool,
    /// The core's own: the end of a watch. Nobody asked, so nothing is remembered for a retry.
    pub(super) internal: bool,
    /// It reads for another pg.
    pub(super) copy: Option<Box<CopyAsker>>,
}

impl Running {
    /// A client's operation, or a read for another pg.
    pub(crate) fn new(op: ClientOp, ids: OpIds, copy: Option<Box<CopyAsker>>) -> Box<Running> {
        let writes = op.ops.iter().any(Op::writes);
        Box::new(Running { op, ids, fetched: Fetched::default(), reading: None, writes, internal: false, copy })
    }

    /// What it is to copy has come, or will not.
    pub(crate) fn with_copy(mut self: Box<Self>, copy: Result<Copied, OpError>) -> Box<Running> {
        self.fetched.copy = Some(copy);
        self
    }

    pub(crate) fn target(&self) -> ObjectId {
        head_of(&self.op.oid)
    }

    /// Who asked, if it only reads: writes are also known by their identity.
    pub(crate) fn read_by(&self) -> Option<OpIds> {
        (!self.writes).then(|| self.ids.clone())
    }

    /// Under which identity it is remembered.
    pub(super) fn reqid(&self) -> Option<ReqId> {
        (!self.internal).then_some(self.op.reqid)
    }
}

impl Context {
    /// Which clone the operation at the head of the queue needs besides the head.
    pub(super) fn clone_needed(&self, oid: &ObjectId) -> Option<ObjectId> {
        let Known::Yes(Some(info)) = &self.known else { return None };
        if info.snaps.clones.is_empty() {
            return None;
        }
        let front = self.queue.front()?;
        let snap = front.op.ops.iter().find_map(|o| if let Op::Rollback { snap } = o { Some(*snap) } else { None });
        let snap = snap.unwrap_or(front.op.oid.snap);
        let id = info.snaps.resolve(snap).filter(|s| *s != SnapId::HEAD)?;
        Some(ObjectId { snap: id, ..oid.clone() })
    }

    /// Operations wait here.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Who waits for a read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = OpIds> {
        self.queue.iter().filter_map(|r| r.read_by())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.readers == 0 && !self.executing && self.writes == 0
    }

    /// What is stored changed otherwise than by an operation: load it again.
    pub(crate) fn forget(&mut self) {
        self.known = Known::No;
    }

    /// The head's metadata, if it was read and the head is there.
    pub(crate) fn info(&self) -> Option<&ObjectInfo> {
        match &self.known {
            Known::Yes(info) => exists(info.as_ref()),
            _ => None,
        }
    }

    /// Takes the object for a change of the core's own, if nobody is at it; [`Self::unlock`] gives it back.
    pub(crate) fn lock(&mut self) -> bool {
        let free = !self.executing && self.readers == 0 && !matches!(self.known, Known::Asked | Known::Damaged);
        self.executing |= free;
        free
    }

    pub(crate) fn unlock(&mut self) {
        self.executing = false;
    }

    /// The head's record, if it was read: none inside if nothing is stored.
    pub(crate) fn record(&self) -> Option<&Option<ObjectInfo>> {
        if let Known::Yes(info) = &self.known { Some(info) } else { None }
    }

    pub(crate) fn learn(&mut self, info: Option<ObjectInfo>) {
        self.known = Known::Yes(info);
    }

    /// A change of the core's own was ordered, which leaves the head like this.
    pub(crate) fn ordered(&mut self, after: Option<ObjectInfo>) {
        self.known = Known::Yes(after);
        self.writes += 1;
    }

    /// The operator's decision about the object was ordered: what is stored now is to be read anew.
    pub(crate) fn decided(&mut self) {
        self.executing = false;
        self.known = Known::No;
        self.writes += 1;
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.executing || self.writes > 0
    }
}
