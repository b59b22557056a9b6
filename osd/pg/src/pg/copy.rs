//! An operation that takes another object's content: fetched piece by piece from that object's primary, which may be
//! another osd's, or this one.
//!
//! The content is gathered before the operation takes its place in its own object's queue. So nothing is held while
//! others are waited for, and copies in a circle end. All pieces are of one version: if the source changes on the way,
//! gathering begins anew, a few times. Questions and answers may be lost; who waits asks again by a timer. What the
//! operation then does is logged like any write, content and all, so that neither members nor retries need the source.

use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SessionId, Version};

use super::Running;
use super::{OpIds, PlacementGroup, Role};
use crate::exec::Copied;
use crate::io::{Duration, Output, Step, TimerId, Way};
use crate::log::{Outcome, ReqId};
use crate::msg::{Body, CopyAsk, CopyCursor, CopyIs, PeerMsg};
use crate::op::{ClientOp, Op, OpError, OpId, OpResult, SnapContext};
use crate::view::pg_of_hash;

/// How long a piece may take until it is asked for again.
const PATIENCE: Duration = Duration::ms(500);
/// How often a source may change while it is read.
const ATTEMPTS: u32 = 8;

/// Content on its way.
#[derive(Debug)]
pub(crate) struct Copying {
    running: Box<Running>,
    from: ObjectId,
    /// The version the client wants.
    wanted: Option<Version>,
    /// The version of the first piece.
    version: Option<Version>,
    at: CopyCursor,
    got: Copied,
    attempts: u32,
}

/// Whom to answer when a piece was read.
#[derive(Clone, Debug)]
pub(crate) struct CopyAsker {
    osd: OsdId,
    pg: PgId,
    interval: Epoch,
    reqid: ReqId,
    at: CopyCursor,
}

/// What a vector copies from.
pub(crate) fn source_of(ops: &[Op]) -> Option<(ObjectId, Option<Version>)> {
    ops.iter().find_map(|o| if let Op::CopyFrom { from, version } = o { Some((from.clone(), *version)) } else { None })
}

impl PlacementGroup {
    /// Such messages belong to no interval of whoever hears them: the map of whoever speaks says whether they are stale.
    fn carry(&self, cx: &mut Step<'_>, to: Way, body: Body) {
        let epoch = self.view.epoch;
        cx.out.push(Output::Carry { to, msg: PeerMsg { epoch, interval: epoch, body } });
    }

    pub(crate) fn begin_copy(
        &mut self,
        cx: &mut Step<'_>,
        reqid: ReqId,
        running: Box<Running>,
        from: ObjectId,
        wanted: Option<Version>,
    ) {
        let (version, at, got) = (wanted, CopyCursor::default(), Copied::default());
        self.copies.insert(reqid, Box::new(Copying { running, from, wanted, version, at, got, attempts: 0 }));
        self.ask_piece(cx, reqid);
        self.arm_copy(cx, reqid);
    }

    fn arm_copy(&self, cx: &mut Step<'_>, reqid: ReqId) {
        cx.out.push(Output::Arm { id: TimerId::Copy { reqid }, at: cx.now + PATIENCE });
    }

    fn ask_piece(&self, cx: &mut Step<'_>, reqid: ReqId) {
        let Some(c) = self.copies.get(&reqid) else { return };
        let ask = CopyAsk {
            pg: self.id,
            interval: self.info.interval,
            reqid,
            from: c.from.clone(),
            version: c.version,
            at: c.at.clone(),
        };
        self.carry(cx, Way::Object(c.from.clone()), Body::CopyAsk(Box::new(ask)));
    }

    /// A piece has not come for a while.
    pub(crate) fn copy_late(&mut self, cx: &mut Step<'_>, reqid: ReqId) {
        if self.copies.contains_key(&reqid) {
            self.ask_piece(cx, reqid);
            self.arm_copy(cx, reqid);
        }
    }

    /// The source: a piece of an object is read like any client's read. Who cannot serve it does not answer.
    pub(crate) fn on_copy_ask(&mut self, cx: &mut Step<'_>, osd: OsdId, ask: CopyAsk) {
        let Role::Primary(p) = &self.role else { return };
        let CopyAsk { pg, interval, reqid, from, version, at } = ask;
        if !p.is_active() || pg_of_hash(from.hash, self.view.pool.pg_num) != self.id.seed || from.pool != self.id.pool {
            return;
        }
        let guard = version.map(|version| Op::AssertVersion { version });
        let piece = Op::GetPiece { at: at.clone(), bytes: self.cfg.chunk_bytes, keys: self.cfg.chunk_keys };
        let op = ClientOp {
            id: OpId(0),
            reqid: ReqId { session: SessionId(0), tid: 0 },
            acked_below: 0,
            epoch: self.view.epoch,
            oid: from,
            snapc: SnapContext::default(),
            ops: guard.into_iter().chain(std::iter::once(piece)).collect(),
        };
        let asker = CopyAsker { osd, pg, interval, reqid, at };
        self.enqueue(cx, Running::new(op, OpIds::default(), Some(Box::new(asker))));
    }

    /// The source: it was read, or refused.
    pub(crate) fn copy_read(&self, cx: &mut Step<'_>, asker: &CopyAsker, version: Version, outcome: Outcome) {
        let (piece, refused) = match outcome.map(|mut results| results.pop()) {
            Ok(Some(OpResult::Piece(piece))) => (Some(*piece), None),
            Ok(_) => (None, Some(OpError::Invalid { at: 0 })),
            Err(e) => (None, Some(e)),
        };
        let CopyAsker { osd, pg, interval, reqid, ref at } = *asker;
        let is = CopyIs { interval, reqid, at: at.clone(), version, piece, refused };
        self.carry(cx, Way::Pg(pg, osd), Body::CopyIs(Box::new(is)));
    }

    /// A piece has come, or why there is none.
    pub(crate) fn on_copy_is(&mut self, cx: &mut Step<'_>, is: CopyIs) {
        let most = self.cfg.max_copy;
        let CopyIs { interval, reqid, at, version, piece, refused } = is;
        let Some(c) = self.copies.get_mut(&reqid).filter(|c| interval == self.info.interval && c.at == at) else {
            return;
        };
        let first = at == CopyCursor::default();
        let Some(piece) = piece else {
            let e = refused.unwrap_or(OpError::Invalid { at: 0 });
            // It was changed, or removed, after the first piece.
            let changed = matches!(e, OpError::Guard { .. } | OpError::NotFound { .. }) && !first;
            c.attempts += u32::from(changed);
            if changed && c.attempts < ATTEMPTS {
                (c.version, c.at, c.got) = (c.wanted, CopyCursor::default(), Copied::default());
                self.ask_piece(cx, reqid);
            } else {
                self.copied(cx, reqid, Err(e));
            }
            return;
        };
        if first && c.version.is_none() {
            c.version = Some(version);
        }
        // An answer to a question of an earlier attempt.
        if c.version != Some(version) {
            return;
        }
        let (size, next) = (piece.size, piece.next.clone());
        if c.got.add(piece).max(size) > most {
            self.copied(cx, reqid, Err(OpError::TooBig { at: 0 }));
            return;
        }
        match next {
            Some(next) => {
                c.at = next;
                self.ask_piece(cx, reqid);
            }
            None => self.copied(cx, reqid, Ok(())),
        }
    }

    /// All is here, or nothing will come: the operation takes its place.
    fn copied(&mut self, cx: &mut Step<'_>, reqid: ReqId, how: Result<(), OpError>) {
        let Some(c) = self.copies.remove(&reqid) else { return };
        let Copying { running, got, .. } = *c;
        self.enqueue(cx, running.with_copy(how.map(|()| got)));
    }
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
