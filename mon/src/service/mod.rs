//! What a monitor serves: [`raft`] to its peers, [`mon`] to everyone else, both over gRPC on one port.
//!
//! Every call names its caller: the identity in the certificate of its connection. A monitor that passes a call on adds
//! the name it is for; only monitors are believed that.

pub mod listen;
pub mod mon;
pub mod raft;

use std::sync::Arc;

use nacre_mon_api::status::to_grpc;
use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Identity, Kind, Ops, Service, UnixTime};
use nacre_net::tls::Trust;
use nacre_proto::ids::OsdId;
use nacre_proto::status::{Code, Status};

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
        let identity = self.identity(call, request)?;
        let access = nacre_net::identity::Access::new(Service::Mon, ops);
        self.gate
            .check(&identity, call, &access)
            .map_err(|denied| to_grpc(&Status::new(Code::Denied, denied.to_string())))?;
        let behalf = request.metadata().get(ON_BEHALF_OF).and_then(|value| value.to_str().ok());
        Ok(match (identity.name.kind(), behalf) {
            (Kind::Mon, Some(who)) => Guest { who: who.to_owned(), passed_on: true },
            _ => Guest { who: identity.name.to_string(), passed_on: false },
        })
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
