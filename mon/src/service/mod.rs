//! What a monitor serves: [`raft`] to its peers, [`mon`] and [`cert`] to everyone else, all over gRPC on one port.
//!
//! Every call names its caller: the identity in the certificate of its connection. A monitor that passes a call on adds
//! the name it is for; only monitors are believed that.

pub mod cert;
pub mod listen;
pub mod mon;
pub mod newcomer;
pub mod raft;

use std::sync::Arc;

use nacre_mon_api::status::{from_grpc, to_grpc};
use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Identity, Kind, Ops, Service, UnixTime};
use nacre_net::tls::Trust;
use nacre_proto::ids::OsdId;
use nacre_proto::status::{Code, Status};

use crate::node::{Elsewhere, Node};
use crate::raft::Member;

/// The name a call is passed on for.
pub const ON_BEHALF_OF: &str = "nacre-for";

/// Who may call, checked in one place.
#[derive(Clone)]
pub struct Door {
    /// Checks and audits.
    pub gate: Gate,
    /// Knows what was revoked since the connection was made.
    pub trust: Arc<Trust>,
}

/// A caller that was let in.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Who asks.
    pub who: String,
    /// Whether another monitor passed the call on, having checked it.
    pub passed_on: bool,
}

impl Door {
    fn identity<T>(&self, call: &str, request: &tonic::Request<T>) -> Result<Arc<Identity>, tonic::Status> {
        let refuse = |code: Code, who: Caller, why: String| {
            let denied = self.gate.refuse(Denied { who, service: Service::Mon, what: call.to_owned(), why });
            to_grpc(&Status::new(code, denied.to_string()))
        };
        let Some(identity) = request.extensions().get::<Arc<Identity>>().cloned() else {
            let who = Caller::Stranger("no certificate".into());
            return Err(refuse(Code::Unauthenticated, who, "its connection has no identity".into()));
        };
        // Connections live long; certificates expire and are revoked meanwhile.
        if let Err(error) = self.trust.judge_again(&identity, UnixTime::now()) {
            return Err(refuse(Code::Unauthenticated, Caller::Member(identity.name.clone()), error.to_string()));
        }
        Ok(identity)
    }

    /// Lets in whoever may do `ops` with the monitors.
    pub fn admit<T>(&self, call: &str, ops: Ops, request: &tonic::Request<T>) -> Result<Guest, tonic::Status> {
        let (guest, identity) = self.know(call, request)?;
        let access = nacre_net::identity::Access::new(Service::Mon, ops);
        self.gate
            .check(&identity, call, &access)
            .map_err(|denied| to_grpc(&Status::new(Code::Denied, denied.to_string())))?;
        Ok(guest)
    }

    /// Who asks, for a call that needs no capability.
    pub fn know<T>(&self, call: &str, request: &tonic::Request<T>) -> Result<(Guest, Arc<Identity>), tonic::Status> {
        let identity = self.identity(call, request)?;
        let behalf = request.metadata().get(ON_BEHALF_OF).and_then(|value| value.to_str().ok());
        let guest = match (identity.name.kind(), behalf) {
            (Kind::Mon, Some(who)) => Guest { who: who.to_owned(), passed_on: true },
            _ => Guest { who: identity.name.to_string(), passed_on: false },
        };
        Ok((guest, identity))
    }

    /// Like [`Door::admit`], for a call that speaks for an OSD: only that OSD, an administrator or a monitor that passes
    /// the call on may make it.
    pub fn admit_for<T>(
        &self,
        call: &str,
        ops: Ops,
        osd: Option<OsdId>,
        request: &tonic::Request<T>,
    ) -> Result<Guest, tonic::Status> {
        let guest = self.admit(call, ops, request)?;
        let identity = self.identity(call, request)?;
        match osd {
            Some(osd) if identity.name.as_osd() != Some(osd) && identity.name.kind() != Kind::Mon => {
                self.admit(&format!("{call} for {osd}"), Ops::ADMIN, request)
            }
            _ => Ok(guest),
        }
    }

    /// Lets in monitors only.
    pub fn admit_monitor<T>(&self, call: &str, request: &tonic::Request<T>) -> Result<(), tonic::Status> {
        let identity = self.identity(call, request)?;
        if identity.name.kind() == Kind::Mon {
            return Ok(());
        }
        let denied = self.gate.refuse(Denied {
            who: Caller::Member(identity.name.clone()),
            service: Service::Mon,
            what: call.to_owned(),
            why: "only monitors take part in consensus".into(),
        });
        Err(to_grpc(&Status::new(Code::Denied, denied.to_string())))
    }
}

/// The call, as it is passed on for its caller.
fn pass_on<T>(guest: &Guest, message: T) -> Result<tonic::Request<T>, tonic::Status> {
    let mut request = tonic::Request::new(message);
    let who = tonic::metadata::MetadataValue::try_from(guest.who.as_str())
        .map_err(|error| to_grpc(&Status::new(Code::Internal, error.to_string())))?;
    request.metadata_mut().insert(ON_BEHALF_OF, who);
    Ok(request)
}

/// What came of a call that was passed on. That the leader is not reached is not the caller's connection that broke, and
/// mostly not the leader's alone: without a majority the monitors go on naming whoever led last.
fn relayed<T>(node: &Node, to: &Member, reply: Result<T, tonic::Status>) -> Result<T, tonic::Status> {
    reply.map_err(|error| {
        if std::error::Error::source(&error).is_none() {
            return error;
        }
        let Status { code, text } = from_grpc(&error);
        let monitors = node.shared.read().membership.voter_ids().count();
        let text = format!(
            "mon.{}, which led last, is not reached ({text}); another leads as soon as a majority of {monitors} monitors \
             reach each other; `nacre mon status` says which are up",
            to.mon
        );
        to_grpc(&Status::new(code, text))
    })
}

/// The leader to pass a call on to. A call is passed on once: two monitors that each take the other for the leader
/// would pass it on for ever.
fn leader(guest: &Guest, elsewhere: Elsewhere) -> Result<Member, tonic::Status> {
    match elsewhere {
        Elsewhere::Failed(status) => Err(to_grpc(&status)),
        Elsewhere::Leader(_, leader) if guest.passed_on => {
            Err(to_grpc(&Status::new(Code::NotLeader, format!("the leader has changed again, now mon.{}", leader.mon))))
        }
        Elsewhere::Leader(_, leader) => Ok(leader),
    }
}
