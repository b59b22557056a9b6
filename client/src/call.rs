//! The way of one request: to the primary by the newest map, again under the same identity until there is an answer.

use std::time::Duration;

use nacre_net::conn::{CallError, Request};
use nacre_net::node::link::Link;
use nacre_pg::format::Codec;
use nacre_pg::log::ReqId;
use nacre_pg::op::{Op, OpResult, Reply, SnapContext};
use nacre_pg::wire::{self, Ask, List, Listed, Parcel, method};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, Version};
use nacre_proto::status::Retry;
use tokio::time::Instant;

use crate::cluster::{Chart, Inner};
use crate::error::Error;

/// Pauses after an attempt that led nowhere and a map that did not change.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// What has taken so long may be so because the map is old: more maps are asked for, and again after twice as long.
const LONG: Duration = Duration::from_secs(2);
/// What an answer may hold besides the bytes that were asked for.
const ROOM: u64 = 64 << 10;

/// Where an attempt got.
enum Attempt<T> {
    Done(T),
    /// Once more, with a map of at least this epoch, or after a pause.
    Again(Option<Epoch>, String),
}

/// An answer's room: what the vector may bring back at most.
fn room(ops: &[Op]) -> u32 {
    let bytes = ops.iter().map(|op| match op {
        Op::Read { len, .. } | Op::SparseRead { len, .. } => len.saturating_add(4096),
        Op::OmapRange { .. } | Op::OmapKeys { .. } | Op::ListXattrs | Op::Call { .. } | Op::Notify { .. } => 8 << 20,
        Op::OmapHeader | Op::GetXattr { .. } => 1 << 20,
        Op::ListSnaps | Op::ListWatchers | Op::Checksum { .. } => 1 << 20,
        _ => 64,
    });
    u32::try_from(bytes.fold(ROOM, u64::saturating_add)).unwrap_or(u32::MAX)
}

/// Ends the request's being open, also if its caller goes away.
struct Open<'a>(&'a Inner, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

impl Inner {
    /// Carries out a vector on an object.
    pub(crate) async fn execute(
        &self,
        oid: ObjectId,
        snapc: &SnapContext,
        ops: Vec<Op>,
    ) -> Result<(Vec<OpResult>, Version), Error> {
        let object = String::from_utf8_lossy(&oid.name).into_owned();
        let open = Open(self, self.begin());
        let reqid = ReqId { session: self.session, tid: open.1 };
        let room = room(&ops);
        let ask = |chart: &Chart| {
            let (pg, primary) = chart.of(oid.pool, oid.hash)?;
            let ask = Ask {
                pg,
                reqid,
                acked_below: self.acked_below(),
                epoch: chart.epoch(),
                oid: oid.clone(),
                snapc: snapc.clone(),
                ops: ops.clone(),
            };
            Some((pg, primary, request(method::ASK, &ask).with_room(room)))
        };
        let answer = |reply: Reply| match reply {
            Reply::Done { outcome, version } => Attempt::Done((outcome, version)),
            Reply::Again { epoch } => Attempt::Again(Some(epoch), "its pg is not served there".into()),
        };
        let (outcome, version) = self.insist(&object, ask, answer).await?;
        match outcome {
            Ok(results) => Ok((results, version)),
            Err(source) => Err(Error::Object { object, source }),
        }
    }

    /// A page of the objects of a pg.
    pub(crate) async fn list(
        &self,
        pg: PgId,
        after: Option<ObjectId>,
    ) -> Result<(Vec<ObjectId>, Option<ObjectId>), Error> {
        let ask = |chart: &Chart| {
            let list = List { pg, epoch: chart.epoch(), after: after.clone(), max: 500 };
            Some((pg, chart.primary(pg), request(method::LIST, &list).with_room(8 << 20)))
        };
        let answer = |listed: Listed| match listed {
            Listed::Objects { list, next } => Attempt::Done((list, next)),
            Listed::Again { epoch } => Attempt::Again(Some(epoch), "the pg is not served there".into()),
        };
        self.insist(&format!("pg {pg}"), ask, answer).await
    }

    /// Asks until there is an answer, or patience ends. `ask` makes the request by a map: which pg, its primary, what.
    async fn insist<T: Codec, A>(
        &self,
        what: &str,
        ask: impl Fn(&Chart) -> Option<(PgId, Option<OsdId>, Request)>,
        answer: impl Fn(T) -> Attempt<A>,
    ) -> Result<A, Error> {
        let began = Instant::now();
        let (mut pause, mut long) = (FIRST_PAUSE, LONG);
        loop {
            let chart = self.chart().ok_or_else(|| Error::Map("there is none".into()))?;
            let Some((pg, primary, request)) = ask(&chart) else {
                return Err(Error::NoPool { name: format!("of {what}") });
            };
            let attempt = match primary.and_then(|osd| Some((osd, self.link(&chart, osd)?))) {
                None => Attempt::Again(None, format!("no OSD that holds pg {pg} is up")),
                Some((osd, link)) => {
                    tokio::select! {
                        attempt = once(osd, &link, request, &answer) => attempt?,
                        () = self.moved(pg, osd) => Attempt::Again(None, format!("pg {pg} left {osd}")),
                        () = self.be_patient(began, &mut long) => Attempt::Again(None, format!("pg {pg} waits at {osd}")),
                    }
                }
            };
            let (wanted, last) = match attempt {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Again(wanted, last) => (wanted, last),
            };
            if self.left(began).is_zero() {
                let patience = self.patience.unwrap_or_default();
                return Err(Error::TimedOut { what: what.to_owned(), patience, last });
            }
            self.note_long(began, &mut long);
            let mut news = self.chart.clone();
            let newer = |now: &Option<std::sync::Arc<Chart>>| {
                now.as_ref()
                    .is_some_and(|now| now.epoch() > chart.epoch() && wanted.is_none_or(|wanted| now.epoch() >= wanted))
            };
            tokio::select! {
                _seen = news.wait_for(newer) => {}
                () = tokio::time::sleep(pause.min(self.left(began))) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Until patience ends.
    async fn be_patient(&self, began: Instant, long: &mut Duration) {
        loop {
            let left = self.left(began);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(long.saturating_sub(began.elapsed()).min(left)).await;
            self.note_long(began, long);
        }
    }

    /// Asks for newer maps when this takes long by now. `long` says from when on.
    fn note_long(&self, began: Instant, long: &mut Duration) {
        if began.elapsed() >= *long {
            *long = began.elapsed() * 2;
            self.ask_for_maps();
        }
    }

    fn left(&self, began: Instant) -> Duration {
        match self.patience {
            Some(patience) => patience.saturating_sub(began.elapsed()),
            None => Duration::from_secs(3600),
        }
    }

    /// Until a map shows another primary than this one, or another run of it.
    pub(crate) async fn moved(&self, pg: PgId, from: OsdId) {
        let run = |chart: &Chart| chart.map.osds.get(from).map(|state| (state.is_up(), state.up_from));
        let before = self.chart().and_then(|chart| run(&chart));
        let mut news = self.chart.clone();
        let gone = |chart: &Option<std::sync::Arc<Chart>>| {
            chart.as_ref().is_some_and(|chart| chart.primary(pg) != Some(from) || run(chart) != before)
        };
        if news.wait_for(gone).await.is_err() {
            // No more maps will come: this client is ending.
            std::future::pending::<()>().await;
        }
    }
}

/// A request that carries a value.
pub(crate) fn request<T: Codec>(method: u16, value: &T) -> Request {
    let Parcel { meta, data } = wire::encode(value);
    Request::new(method, meta).with_data(data)
}

async fn once<T: Codec, A>(
    osd: OsdId,
    link: &Link,
    request: Request,
    answer: impl Fn(T) -> Attempt<A>,
) -> Result<Attempt<A>, Error> {
    match link.call(request).await {
        Ok(reply) => match wire::decode::<T>(&reply.meta, &reply.data) {
            Ok(reply) => Ok(answer(reply)),
            Err(_) => Err(Error::Shape { object: osd.to_string() }),
        },
        Err(CallError::Failed(status)) if status.code.retry() == Retry::Never => Err(Error::Refused(status)),
        Err(error @ CallError::TooLarge { .. }) => Err(Error::Refused(error.into())),
        Err(error) => Ok(Attempt::Again(None, format!("{osd}: {error}"))),
    }
}
