//! Identities over gRPC: for members ([`CertService`]) and for newcomers that have no certificate yet ([`JoinService`]).
//! A follower passes every call on to the leader, which alone signs.

use std::net::SocketAddr;
use std::sync::Arc;

use nacre_mon_api::status::{from_grpc, to_grpc};
use nacre_mon_api::v1;
use nacre_mon_api::v1::cert_client::CertClient;
use nacre_mon_api::v1::cert_server::Cert;
use nacre_mon_api::v1::join_client::JoinClient;
use nacre_mon_api::v1::join_server::Join;
use nacre_net::identity::gate::Caller;
use nacre_net::identity::join::TokenId;
use nacre_net::identity::{Denied, Kind, Ops, Service};
use nacre_proto::status::{Code, Status};
use tonic::{Request, Response};

use super::{Door, leader, pass_on, relayed};
use crate::identity::office::Office;
use crate::node::Elsewhere;

/// For members.
#[derive(Clone)]
pub struct CertService {
    /// Who decides.
    pub office: Arc<Office>,
    /// Who may call.
    pub door: Door,
}

macro_rules! done_or_passed_on {
    ($this:ident, $guest:ident, $message:ident, $verb:ident, $done:expr) => {
        match $done.await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(elsewhere) => {
                let leader = leader(&$guest, elsewhere)?;
                let node = &$this.office.node;
                let reply = CertClient::new(node.peers.onward(&leader)).$verb(pass_on(&$guest, $message)?).await;
                relayed(node, &leader, reply)
            }
        }
    };
}

#[tonic::async_trait]
impl Cert for CertService {
    async fn make_token(&self, request: Request<v1::TokenRequest>) -> Result<Response<v1::TokenReply>, tonic::Status> {
        let guest = self.door.admit("cert token", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, make_token, self.office.make_token(guest.who.clone(), &message))
    }

    async fn drop_token(
        &self,
        request: Request<v1::DropTokenRequest>,
    ) -> Result<Response<v1::CertReply>, tonic::Status> {
        let guest = self.door.admit("cert drop-token", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(
            self,
            guest,
            message,
            drop_token,
            self.office.drop_token(guest.who.clone(), TokenId(message.id))
        )
    }

    async fn list(&self, request: Request<v1::CertListRequest>) -> Result<Response<v1::CertListReply>, tonic::Status> {
        let guest = self.door.admit("cert list", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, list, async {
            self.office.node.linearize().await?;
            Ok::<_, Elsewhere>(self.office.list())
        })
    }

    async fn decide(&self, request: Request<v1::DecideRequest>) -> Result<Response<v1::CertReply>, tonic::Status> {
        let verb = if request.get_ref().approve { "cert approve" } else { "cert deny" };
        let guest = self.door.admit(verb, Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, decide, self.office.decide(guest.who.clone(), &message))
    }

    async fn revoke(&self, request: Request<v1::RevokeNameRequest>) -> Result<Response<v1::CertReply>, tonic::Status> {
        let guest = self.door.admit("cert revoke", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, revoke, self.office.revoke(guest.who.clone(), &message))
    }

    async fn set_caps(&self, request: Request<v1::SetCapsRequest>) -> Result<Response<v1::CertReply>, tonic::Status> {
        let guest = self.door.admit("cert caps", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, set_caps, self.office.set_caps(guest.who.clone(), &message))
    }

    async fn rotate(&self, request: Request<v1::RotateRequest>) -> Result<Response<v1::RotateReply>, tonic::Status> {
        let guest = self.door.admit("cert rotate", Ops::ADMIN, &request)?;
        let message = request.into_inner();
        done_or_passed_on!(self, guest, message, rotate, self.office.rotate(guest.who.clone(), &message))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::JoinReply>, tonic::Status> {
        // Whoever is believed may go on being believed: no capability is needed.
        let (guest, identity) = self.door.know("cert renew", &request)?;
        let mut message = request.into_inner();
        if !guest.passed_on {
            message.generation = identity.generation;
            message.caps = identity.caps.to_string();
        }
        let name = guest.who.parse().map_err(|_| to_grpc(&Status::new(Code::Invalid, "not a name")))?;
        done_or_passed_on!(self, guest, message, renew, self.office.renew(name, &message))
    }
}

/// Where a newcomer calls from.
#[derive(Clone, Copy, Debug)]
pub struct Stranger(pub SocketAddr);

/// For newcomers; monitors pass their calls on.
#[derive(Clone)]
pub struct JoinService {
    /// Who decides.
    pub office: Arc<Office>,
    /// Where refusals are reported.
    pub door: Door,
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, tonic::Status> {
        let (passed_on, who) = match request.extensions().get::<Stranger>() {
            Some(Stranger(from)) => (false, Caller::Stranger(from.to_string())),
            None => {
                let (_, identity) = self.door.know("join", &request)?;
                (identity.name.kind() == Kind::Mon, Caller::Member(identity.name.clone()))
            }
        };
        let message = request.into_inner();
        let answered = match self.office.join(&message).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(Elsewhere::Leader(_, leader)) if !passed_on => {
                let node = &self.office.node;
                relayed(node, &leader, JoinClient::new(node.peers.onward(&leader)).join(message).await)
            }
            Err(Elsewhere::Leader(..)) => Err(to_grpc(&Status::new(Code::NotLeader, "the leader has changed again"))),
            Err(Elsewhere::Failed(status)) => Err(to_grpc(&status)),
        };
        // The monitor that knows where the newcomer called from reports its refusal.
        if let (Err(status), false) = (&answered, passed_on)
            && matches!(from_grpc(status).code, Code::Denied | Code::Invalid)
        {
            let why = from_grpc(status).text;
            self.door.gate.refuse(Denied { who, service: Service::Mon, what: "join".into(), why });
        }
        answered
    }
}
