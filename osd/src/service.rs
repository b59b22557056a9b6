//! What others may ask of this OSD: who may ask what is decided here, once; the rest is handed to the shard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use nacre_net::conn::{Call, End, Handler, Notice, Peer, Responder};
use nacre_net::frame::Priority;
use nacre_net::identity::gate::{Caller, Denied};
use nacre_net::identity::{Access, Gate, Identity, Ops, Service};
use nacre_pg::format::{Codec, FormatError};
use nacre_pg::op::Op;
use nacre_pg::wire::{self, Ask, List, Look, Parcel, PgLine, Said, Tell, Told, method};
use nacre_proto::ids::{OsdId, PgId, SessionId};
use nacre_proto::status::{Code, Status};
use tokio::sync::mpsc;

use crate::shard::Event;
use crate::shards::Shards;
use crate::sight::Sight;

/// What all connections share.
pub struct Desk {
    /// Who has the groups.
    pub shards: Shards,
    /// Who may do what.
    pub gate: Gate,
    /// The newest map.
    pub sight: RwLock<Option<Arc<Sight>>>,
    /// The newest connection of each client's session.
    pub sessions: Mutex<BTreeMap<u64, Peer>>,
}

/// One connection.
pub struct Guest {
    desk: Arc<Desk>,
    osd: Option<OsdId>,
}

impl Guest {
    /// A handler for a connection to come.
    pub fn new(desk: Arc<Desk>) -> Guest {
        Guest { desk, osd: None }
    }
}

/// The classes of operation a vector needs.
fn needs(ops: &[Op]) -> Ops {
    ops.iter().fold(Ops::empty(), |needs, op| {
        needs
            | match op {
                Op::Call { .. } => Ops::CALL,
                op if op.writes() => Ops::WRITE,
                _ => Ops::READ,
            }
    })
}

fn decoded<T: Codec>(meta: &Bytes, data: &Bytes) -> Result<T, Status> {
    wire::decode(meta, data)
        .map_err(|error: FormatError| Status::new(Code::Invalid, format!("the message is not understood: {error}")))
}

/// Answers with a value.
pub fn answer<T: Codec>(responder: Responder, value: &T) {
    let Parcel { meta, data } = wire::encode(value);
    responder.ok(meta, data, None);
}

impl Desk {
    /// May the caller do that to objects of this pg's pool.
    fn admit(&self, call: &Call, verb: &str, ops: Ops, pg: PgId, namespace: &[u8]) -> Result<(), Status> {
        let Some(who) = call.who() else { return Err(Status::new(Code::Unauthenticated, "no identity")) };
        let sight = self.sight.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sight) = sight else { return Err(Status::new(Code::Unavailable, "this OSD has no map yet")) };
        // A pool this OSD does not know of yet: the caller's map is newer, and it asks again.
        let pool = sight.map.pools.get(&pg.pool).map_or("", |pool| pool.name.as_str());
        let namespace = String::from_utf8_lossy(namespace);
        let access = Access::new(Service::Osd, ops).in_pool(pool, &namespace);
        let denied = |denied: Denied| Status::new(Code::Denied, denied.to_string());
        self.gate.check(&who.identity, verb, &access).map_err(denied)?;
        if sight.map.is_fenced(SessionId(who.session)) {
            let refused =
                self.refuse(&who.identity, verb, "its session was fenced: what it still wants to write must not land");
            return Err(Status::new(Code::Fenced, refused.to_string()));
        }
        Ok(())
    }

    /// Refuses what no capability could allow.
    fn refuse(&self, who: &Identity, what: &str, why: &str) -> Denied {
        let who = Caller::Member(who.name.clone());
        self.gate.refuse(Denied { who, service: Service::Osd, what: what.into(), why: why.into() })
    }

    /// May the caller look at, or order, the groups themselves.
    fn admit_operator(&self, call: &Call, verb: &str, ops: Ops) -> Result<(), Status> {
        let Some(who) = call.who() else { return Err(Status::new(Code::Unauthenticated, "no identity")) };
        let denied = |denied: Denied| Status::new(Code::Denied, denied.to_string());
        self.gate.check(&who.identity, verb, &Access::new(Service::Osd, ops)).map_err(denied)
    }

    /// A watcher's notice. One whose connection is gone, or which does not keep up, does not hear it: it renews its watch
    /// when it is back, and is told again what it has not answered.
    pub fn tell(&self, session: SessionId, told: &Told) {
        let peer = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session.0).cloned();
        let Some(peer) = peer else { return };
        let Parcel { meta, data } = wire::encode(told);
        if let Err(error) = peer.notify(method::TOLD, Priority::Normal, meta, data) {
            tracing::debug!(session = session.0, %error, "a watcher was not told");
        }
    }

    fn ask(&self, call: &Call) -> Result<Wanted, Status> {
        match call.method {
            method::ASK => {
                let ask: Ask = decoded(&call.meta, &call.data)?;
                self.admit(call, "objects", needs(&ask.ops), ask.pg, &ask.oid.namespace)?;
                for op in &ask.ops {
                    // What is copied is read on the caller's behalf.
                    if let Op::CopyFrom { from, .. } = op {
                        let source = PgId { pool: from.pool, seed: 0 };
                        self.admit(call, "objects", Ops::READ, source, &from.namespace)?;
                    }
                }
                match call.who() {
                    Some(who) if who.session == ask.reqid.session.0 => Ok(Wanted::Ask(ask)),
                    Some(who) => {
                        let why = "the request speaks for another session than its connection";
                        Err(Status::new(Code::Denied, self.refuse(&who.identity, "objects", why).to_string()))
                    }
                    None => Err(Status::new(Code::Unauthenticated, "no identity")),
                }
            }
            method::LIST => {
                let list: List = decoded(&call.meta, &call.data)?;
                self.admit(call, "list", Ops::READ, list.pg, b"")?;
                Ok(Wanted::List(list))
            }
            method::LOOK => {
                let look: Look = decoded(&call.meta, &call.data)?;
                self.admit_operator(call, "pg look", Ops::READ)?;
                Ok(Wanted::Look(look))
            }
            method::TELL => {
                let tell: Tell = decoded(&call.meta, &call.data)?;
                self.admit_operator(call, "pg order", Ops::ADMIN)?;
                Ok(Wanted::Tell(tell))
            }
            other => Err(Status::new(Code::Unsupported, format!("method {other} is not known to this release"))),
        }
    }
}

/// A request on its way to the shard, still without the part that answers it.
enum Wanted {
    Ask(Ask),
    List(List),
    Look(Look),
    Tell(Tell),
}

/// Asks every shard for its lines, and answers when all have given them.
fn look_at(shards: &Shards, look: &Look, responder: Responder) {
    let (to, mut parts) = mpsc::unbounded_channel();
    match look.only {
        Some(pg) => shards.send(pg, Event::Look(look.clone(), to)),
        None => drop(shards.all(move || Event::Look(look.clone(), to.clone()))),
    }
    tokio::spawn(async move {
        let mut lines = Vec::new();
        while let Some(part) = parts.recv().await {
            lines.extend(part);
        }
        lines.sort_by_key(|line: &PgLine| line.pg);
        answer(responder, &lines);
    });
}

impl Handler for Guest {
    fn opened(&mut self, peer: &Peer) {
        self.osd = peer.info().identity.name.as_osd();
        if self.osd.is_none() {
            let mut sessions = self.desk.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(peer.info().session, peer.clone());
        }
    }

    fn request(&mut self, call: Call) {
        match (call.method, self.osd) {
            (method::PING, _) => call.ok(Bytes::new(), Bytes::new()),
            _ => match self.desk.ask(&call) {
                Ok(event) => {
                    let responder = call.into_responder();
                    let shards = &self.desk.shards;
                    match event {
                        Wanted::Ask(ask) => shards.send(ask.pg, Event::Ask(ask, responder, Instant::now())),
                        Wanted::List(list) => shards.send(list.pg, Event::List(list, responder)),
                        Wanted::Look(look) => look_at(shards, &look, responder),
                        Wanted::Tell(tell) => {
                            responder.ok(Bytes::new(), Bytes::new(), None);
                            shards.send(tell.pg, Event::Order(tell.pg, tell.order));
                        }
                    }
                }
                Err(status) => call.fail(&status),
            },
        }
    }

    fn notice(&mut self, peer: &Peer, notice: Notice) {
        let (method::SAY, Some(from)) = (notice.method, self.osd) else {
            let what = format!("send notice {}", notice.method);
            self.desk.refuse(&peer.info().identity, &what, "only OSDs speak to placement groups directly");
            return peer.close("only OSDs speak to placement groups directly");
        };
        match decoded::<Said>(&notice.meta, &notice.data) {
            Ok(said) => self.desk.shards.send(said.pg, Event::Said(from, said)),
            Err(status) => {
                // A message lost is a connection lost: groups rely on getting all of them.
                tracing::error!(%from, %status, "a message between replicas was not understood");
                peer.close("a message was not understood");
            }
        }
    }

    fn closed(&mut self, peer: &Peer, _why: &End) {
        if self.osd.is_none() {
            let mut sessions = self.desk.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let session = peer.info().session;
            // A newer connection of the session may have taken its place.
            if sessions.get(&session).is_some_and(|known| known.is_over().is_some()) {
                sessions.remove(&session);
            }
        }
        if let Some(osd) = self.osd {
            self.desk.shards.all(|| Event::Reset(osd, None));
        }
    }
}

#[cfg(test)]
#[path = "service_test.rs"]
mod tests;
