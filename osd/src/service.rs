//! What others may ask of this OSD: who may ask what is decided here, once; the rest is handed to the shard.

use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use nacre_net::conn::{Call, End, Handler, Peer};
use nacre_net::identity::gate::{Caller, Denied};
use nacre_net::identity::{Access, Gate, Ops, Service};
use nacre_pg::format::{Codec, FormatError};
use nacre_pg::op::Op;
use nacre_pg::wire::{self, Ask, List, Said, method};
use nacre_proto::ids::{OsdId, PgId};
use nacre_proto::status::{Code, Status};

use crate::shard::Event;
use crate::sight::Sight;

/// What all connections share.
pub struct Desk {
    /// The shard's queue.
    pub events: Sender<Event>,
    /// Who may do what.
    pub gate: Gate,
    /// The newest map.
    pub sight: RwLock<Option<Arc<Sight>>>,
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

fn decoded<T: Codec>(data: &Bytes) -> Result<T, Status> {
    wire::decode(data)
        .map_err(|error: FormatError| Status::new(Code::Invalid, format!("the message is not understood: {error}")))
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
        if sight.map.is_fenced(nacre_proto::ids::SessionId(who.session)) {
            let why = "its session was fenced: what it still wants to write must not land".to_owned();
            let caller = Caller::Member(who.identity.name.clone());
            let refused = self.gate.refuse(Denied { who: caller, service: Service::Osd, what: verb.into(), why });
            return Err(Status::new(Code::Fenced, refused.to_string()));
        }
        Ok(())
    }

    fn ask(&self, call: &Call) -> Result<Wanted, Status> {
        match call.method {
            method::ASK => {
                let ask: Ask = decoded(&call.data)?;
                self.admit(call, "objects", needs(&ask.ops), ask.pg, &ask.oid.namespace)?;
                for op in &ask.ops {
                    // What is copied is read on the caller's behalf.
                    if let Op::CopyFrom { from, .. } = op {
                        let source = PgId { pool: from.pool, seed: 0 };
                        self.admit(call, "objects", Ops::READ, source, &from.namespace)?;
                    }
                }
                if call.who().map(|who| who.session) != Some(ask.reqid.session.0) {
                    return Err(Status::new(Code::Denied, "a request speaks for another session than its connection"));
                }
                Ok(Wanted::Ask(ask))
            }
            method::LIST => {
                let list: List = decoded(&call.data)?;
                self.admit(call, "list", Ops::READ, list.pg, b"")?;
                Ok(Wanted::List(list))
            }
            other => Err(Status::new(Code::Unsupported, format!("method {other} is not known to this release"))),
        }
    }
}

/// A request on its way to the shard, still without the part that answers it.
enum Wanted {
    Ask(Ask),
    List(List),
}

impl Handler for Guest {
    fn opened(&mut self, peer: &Peer) {
        self.osd = peer.info().identity.name.as_osd();
    }

    fn request(&mut self, call: Call) {
        match (call.method, self.osd) {
            (method::PING, _) => call.ok(Bytes::new(), Bytes::new()),
            (method::SAY, Some(from)) => match decoded::<Said>(&call.data) {
                Ok(said) => {
                    // The shard is gone only when the daemon ends.
                    let _ = self.desk.events.send(Event::Said(from, said));
                    call.ok(Bytes::new(), Bytes::new());
                }
                Err(status) => {
                    // A message lost is a connection lost: groups rely on getting all of them.
                    tracing::error!(%from, %status, "a message between replicas was not understood");
                    call.peer().close("a message was not understood");
                }
            },
            (method::SAY, None) => {
                call.fail(&Status::new(Code::Denied, "only OSDs speak to placement groups directly"));
            }
            _ => match self.desk.ask(&call) {
                Ok(event) => {
                    let responder = call.into_responder();
                    let event = match event {
                        Wanted::Ask(ask) => Event::Ask(ask, responder),
                        Wanted::List(list) => Event::List(list, responder),
                    };
                    let _ = self.desk.events.send(event);
                }
                Err(status) => call.fail(&status),
            },
        }
    }

    fn closed(&mut self, _peer: &Peer, _why: &End) {
        if let Some(osd) = self.osd {
            let _ = self.desk.events.send(Event::Reset(osd, None));
        }
    }
}
