//! What the leading monitor does between a call about identities and an entry of the log. One call at a time: what is
//! decided from the state is in the state before the next one is looked at.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use nacre_maps::settings::MonSettings;
use nacre_mon_api::v1;
use nacre_mon_api::v1::join_reply::Answer as Told;
use nacre_net::identity::authority::SigningRequest;
use nacre_net::identity::certificate::Serial;
use nacre_net::identity::join::{
    self, Answer, Change as DeskChange, Issued, JoinError, Member, RequestId, ToSign, Token, TokenId, Whom, hex,
};
use nacre_net::identity::{
    Authority, Caps, ClusterId, Identity, IdentityError, Keypair, Kind, Name, Revocations, SealKey, UnixTime,
};
use nacre_proto::status::{Code, Status};
use tokio::sync::Mutex;

use super::{AuthorityRecord, Change, Identities, wire};
use crate::node::{Elsewhere, Node};

/// What the seal is for: part of what it authenticates.
pub const PURPOSE: &str = "nacre authority key";
/// How long a token is good if nothing else was asked for.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long an authority lives: longer than it should be kept.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);

/// See the module.
pub struct Office {
    /// The monitor.
    pub node: Arc<Node>,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The key to the authority's key; a monitor that has just joined asks the others for it.
    pub seal: RwLock<Option<SealKey>>,
    turn: Mutex<Turn>,
}

/// The session under which this monitor writes entries, and who may write the next.
struct Turn {
    session: u64,
    sequence: u64,
}

fn status(error: JoinError) -> Status {
    let code = match &error {
        JoinError::NotAToken => Code::Invalid,
        JoinError::TokenInvalid { .. } | JoinError::TokenForAnother { .. } | JoinError::NotYours { .. } => Code::Denied,
        JoinError::Full => Code::Busy,
        JoinError::NoRequest(_) => Code::NotFound,
        JoinError::Decided { .. } => Code::Refused,
        JoinError::Unknown(_) => Code::NotFound,
    };
    Status::new(code, error.to_string())
}

fn invalid(error: IdentityError) -> Status {
    Status::new(Code::Invalid, error.to_string())
}

fn own(fault: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, fault.to_string())
}

/// The capabilities of a text; for none, those of the kind.
fn caps(text: &str, kind: Kind) -> Result<Caps, Status> {
    if !text.trim().is_empty() {
        return text.parse().map_err(invalid);
    }
    match kind {
        Kind::Client => Err(Status::new(
            Code::Invalid,
            "a client has no capabilities by itself: say which, as in --caps \"mon r; osd rwx pool=vms\"",
        )),
        kind => Ok(Caps::of_daemon(kind)),
    }
}

impl Office {
    /// Of a monitor.
    pub fn new(node: Arc<Node>, cluster: ClusterId, seal: Option<SealKey>) -> Office {
        let turn = Mutex::new(Turn { session: rand::random::<u64>().max(1), sequence: 0 });
        Office { node, cluster, seal: RwLock::new(seal), turn }
    }

    /// What the state says of identities.
    pub fn read<T>(&self, look: impl FnOnce(&Identities) -> T) -> T {
        look(&self.node.shared.read().identities)
    }

    /// What monitors no longer believe: what the map names, and every earlier edition of a member's certificates.
    pub fn revocations(&self) -> Revocations {
        let mut list = Revocations::default();
        let state = self.node.shared.read();
        for (serial, revocation) in state.map.revoked.iter() {
            list.revoke(Serial(serial.as_slice().into()), UnixTime(revocation.until.0.div_ceil(1000)));
        }
        for (name, member) in state.identities.desk.members.iter().filter(|(_, member)| member.generation > 0) {
            list.revoke_name(name.clone(), member.generation);
        }
        list
    }

    /// How long certificates live.
    fn lifetime(&self) -> Duration {
        MonSettings(&self.node.hub.map()).span("mon.cert_lifetime")
    }

    fn authority(&self) -> Result<Authority, Status> {
        let record = self.read(|held| held.authority.clone()).ok_or_else(|| {
            Status::new(Code::Unavailable, "the cluster's authority has not reached the monitors yet: ask again")
        })?;
        let seal = self.seal.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            Status::new(
                Code::Unavailable,
                "the leading monitor has no seal key and cannot open the authority's: copy seal.key from another \
                 monitor, or move leadership (`nacre mon quorum`)",
            )
        })?;
        let key = seal.open(PURPOSE, &record.sealed).map_err(own)?;
        Authority::open(self.cluster, Keypair { certificate: record.certificate, key }).map_err(own)
    }

    fn authorities(&self) -> Vec<bytes::Bytes> {
        self.trusted().into_iter().map(bytes::Bytes::from).collect()
    }

    /// Certificates of the authorities that are believed, the one that signs first.
    pub fn trusted(&self) -> Vec<Vec<u8>> {
        self.read(Identities::trusted)
    }

    async fn commit(&self, turn: &mut Turn, who: String, change: &Change) -> Result<(), Elsewhere> {
        turn.sequence += 1;
        let verb = v1::command::Verb::Identity(wire::change_to(change));
        let request = v1::ExecuteRequest {
            session: turn.session,
            sequence: turn.sequence,
            command: Some(v1::Command { verb: Some(verb) }),
            dry_run: false,
        };
        let reply = self.node.execute(who, &request).await?;
        match u16::try_from(reply.code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Status::new(Code::from_number(code), reply.text).into()),
            Err(_) => Err(own(reply.text).into()),
        }
    }

    fn sign(&self, to_sign: ToSign) -> Result<DeskChange, Status> {
        let now = UnixTime::now();
        let certificate =
            self.authority()?.sign(&to_sign.request, &to_sign.grant, now, self.lifetime()).map_err(invalid)?;
        let mut change = to_sign.signed(certificate, now).map_err(own)?;
        if let DeskChange::TokenUsed { member, .. } | DeskChange::Approved { member, .. } = &mut change {
            // They come with its certificate.
            member.trusts = self.trusted().iter().map(|der| join::authority_fingerprint(der)).collect();
        }
        Ok(change)
    }

    /// Puts the authority and the first members into the state, unless they are there.
    pub async fn give_birth(&self, born: Change) -> Result<(), Elsewhere> {
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        if self.read(|held| held.authority.is_some()) {
            return Ok(());
        }
        self.commit(&mut turn, format!("mon.{}", self.node.identity.mon), &born).await
    }

    /// Forgets what is over, if this monitor leads.
    pub async fn sweep(&self) -> Result<(), Elsewhere> {
        let Some(change) = self.read(|held| held.desk.sweep(UnixTime::now())) else { return Ok(()) };
        let mut turn = self.turn.lock().await;
        self.commit(&mut turn, format!("mon.{}", self.node.identity.mon), &Change::Desk(change)).await
    }

    /// A newcomer asks, with a token or for an operator's approval.
    pub async fn join(&self, message: &v1::JoinRequest) -> Result<v1::JoinReply, Elsewhere> {
        let request = SigningRequest::read(&message.request).map_err(invalid)?;
        if request.cluster() != self.cluster {
            let text = format!("the request is for cluster {}, this is {}", request.cluster(), self.cluster);
            return Err(Status::new(Code::Invalid, text).into());
        }
        let token = match message.token.as_str() {
            "" => None,
            text => Some(text.parse::<Token>().map_err(status)?),
        };
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        loop {
            let now = UnixTime::now();
            let answer = self.read(|held| match &token {
                Some(token) => held.desk.redeem(token, request.clone(), now),
                None => held.desk.ask(&request, &message.request, now),
            });
            // Each turn either answers or moves the desk a step on: asked, then waiting; signed, then certified.
            let told = match answer.map_err(status)? {
                Answer::Sign(to_sign) => {
                    let change = Change::Desk(self.sign(*to_sign)?);
                    self.commit(&mut turn, request.name().to_string(), &change).await?;
                    continue;
                }
                Answer::Wait(_, Some(change)) => {
                    self.commit(&mut turn, request.name().to_string(), &Change::Desk(*change)).await?;
                    continue;
                }
                Answer::Wait(id, None) => Told::Waits(id.0),
                Answer::Certificate(certificate) => Told::Certificate(certificate.into()),
                Answer::Denied(why) => Told::Denied(why),
            };
            return Ok(v1::JoinReply { answer: Some(told), authorities: self.authorities() });
        }
    }

    /// A member's next certificate.
    pub async fn renew(&self, name: Name, message: &v1::RenewRequest) -> Result<v1::JoinReply, Elsewhere> {
        let request = SigningRequest::read(&message.request).map_err(invalid)?;
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let now = UnixTime::now();
        let who = Identity {
            cluster: self.cluster,
            name: name.clone(),
            caps: message.caps.parse().map_err(invalid)?,
            generation: message.generation,
            serial: Serial(Box::default()),
            not_before: now,
            not_after: now,
            signer: None,
        };
        if !self.read(|held| held.desk.members.contains_key(&name)) {
            // Its certificate was believed a moment ago, and what was revoked is remembered for as long as it lives: it
            // was made from the authority's key while the monitors were away, or after the backup they came from.
            let change =
                DeskChange::MemberSet { name: name.clone(), member: Member::new(who.caps.clone(), who.generation) };
            self.commit(&mut turn, name.to_string(), &Change::Desk(change)).await?;
        }
        let grant = self.read(|held| held.desk.renew(&who, &request)).map_err(status)?;
        let certificate = self.authority()?.sign(&request, &grant, now, self.lifetime()).map_err(invalid)?;
        let issued = Issued::of(certificate.clone(), request.fingerprint(), now).map_err(own)?;
        let serial = issued.serial.clone();
        let trusts =
            wire::prints_from(&message.trusts).map_err(|error| Status::new(Code::Invalid, error.to_string()))?;
        let change = DeskChange::Renewed { name: name.clone(), generation: grant.generation, issued, trusts };
        self.commit(&mut turn, name.to_string(), &Change::Desk(change)).await?;
        let known = self.read(|held| {
            held.desk.members.get(&name).is_some_and(|member| member.held.iter().any(|held| held.serial == serial))
        });
        if !known {
            return Err(status(JoinError::Unknown(name)).into());
        }
        Ok(v1::JoinReply { answer: Some(Told::Certificate(certificate.into())), authorities: self.authorities() })
    }

    /// A token.
    pub async fn make_token(&self, who: String, message: &v1::TokenRequest) -> Result<v1::TokenReply, Elsewhere> {
        let whom: Whom = message.whom.parse().map_err(invalid)?;
        let caps = caps(&message.caps, whom.kind().unwrap_or(Kind::Client))?;
        let life = match message.life_seconds {
            0 => TOKEN_LIFE,
            seconds => Duration::from_secs(seconds),
        };
        if life > join::MAX_TOKEN_LIFE {
            let days = join::MAX_TOKEN_LIFE.as_secs() / 86_400;
            return Err(Status::new(Code::Range, format!("a token lives {days} days at most")).into());
        }
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let authority = self.read(|held| held.authority.clone()).ok_or_else(|| own("there is no authority yet"))?;
        let (token, change) =
            self.read(|held| held.desk.make_token(whom, caps.clone(), &authority.certificate, UnixTime::now(), life));
        let expires = match &change {
            DeskChange::TokenMade { record, .. } => record.expires.0,
            _ => 0,
        };
        self.commit(&mut turn, who, &Change::Desk(change)).await?;
        Ok(v1::TokenReply { token: token.reveal().to_string(), id: token.id.0, caps: caps.to_string(), expires })
    }

    /// Takes a token back.
    pub async fn drop_token(&self, who: String, id: TokenId) -> Result<v1::CertReply, Elsewhere> {
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        if !self.read(|held| held.desk.tokens.contains_key(&id)) {
            return Err(Status::new(Code::NotFound, format!("there is no join token {id}")).into());
        }
        self.commit(&mut turn, who, &Change::Desk(DeskChange::TokenDropped(id))).await?;
        Ok(v1::CertReply { text: format!("join token {id} is good for nothing any more") })
    }

    /// An operator decides.
    pub async fn decide(&self, who: String, message: &v1::DecideRequest) -> Result<v1::CertReply, Elsewhere> {
        let id = RequestId(message.request);
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let (name, asked) = self
            .read(|held| held.desk.requests.get(&id).map(|record| (record.name.clone(), record.caps.clone())))
            .ok_or_else(|| status(JoinError::NoRequest(id)))?;
        if !message.approve {
            let by = who.parse().map_err(invalid)?;
            let why = if message.why.is_empty() { format!("denied by {who}") } else { message.why.clone() };
            let change = self.read(|held| held.desk.deny(id, by, &why, UnixTime::now())).map_err(status)?;
            self.commit(&mut turn, who, &Change::Desk(change)).await?;
            return Ok(v1::CertReply { text: format!("signing request {id} of {name} denied") });
        }
        // A daemon gets what its kind needs, not what it asks for; a client what its operator has seen in the list.
        let granted = match (message.caps.trim(), name.kind()) {
            ("", Kind::Client) => asked,
            (text, kind) => caps(text, kind)?,
        };
        let to_sign = self.read(|held| held.desk.approve(id, Some(granted.clone()))).map_err(status)?;
        let change = Change::Desk(self.sign(to_sign)?);
        self.commit(&mut turn, who, &change).await?;
        Ok(v1::CertReply { text: format!("signing request {id} of {name} approved with \"{granted}\"") })
    }

    /// A name is no longer believed.
    pub async fn revoke(&self, who: String, message: &v1::RevokeNameRequest) -> Result<v1::CertReply, Elsewhere> {
        let name: Name = message.name.parse().map_err(invalid)?;
        if name.to_string() == who {
            let text = format!(
                "{name} cannot revoke itself: nobody may be left to let anyone in; have another administrator do it"
            );
            return Err(Status::new(Code::Refused, text).into());
        }
        if let Some(mon) = name.as_mon()
            && self.node.shared.read().membership.nodes().any(|(_, member)| member.mon == mon.0)
        {
            let text = format!("{name} is a member of the quorum: remove it first (`nacre mon remove {}`)", mon.0);
            return Err(Status::new(Code::Refused, text).into());
        }
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let by = who.parse().map_err(invalid)?;
        let why = if message.why.is_empty() { format!("revoked by {who}") } else { message.why.clone() };
        let change = self.read(|held| held.desk.revoke(&name, by, &why, UnixTime::now())).map_err(status)?;
        let certificates = self.read(|held| held.desk.members.get(&name).map_or(0, |member| member.held.len()));
        self.commit(&mut turn, who, &Change::Desk(change)).await?;
        Ok(v1::CertReply { text: format!("{name} is no longer believed; {certificates} certificates are void") })
    }

    /// Other capabilities for a member.
    pub async fn set_caps(&self, who: String, message: &v1::SetCapsRequest) -> Result<v1::CertReply, Elsewhere> {
        let name: Name = message.name.parse().map_err(invalid)?;
        let caps: Caps = message.caps.parse().map_err(invalid)?;
        if name.to_string() == who && message.now {
            let text = format!("{name} cannot void its own certificates; have another administrator do it");
            return Err(Status::new(Code::Refused, text).into());
        }
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let change = self.read(|held| held.desk.set_caps(&name, caps.clone(), message.now)).map_err(status)?;
        self.commit(&mut turn, who, &Change::Desk(change)).await?;
        let when =
            if message.now { "its certificates are void, let it join anew" } else { "from its next certificate on" };
        Ok(v1::CertReply { text: format!("{name} has \"{caps}\", {when}") })
    }

    /// Takes the next step from one authority to another, if all are ready for it: see [`super`].
    pub async fn rotate(&self, who: String, message: &v1::RotateRequest) -> Result<v1::RotateReply, Elsewhere> {
        let reply =
            |step: &str, waiting: Vec<String>, text: String| v1::RotateReply { text, step: step.into(), waiting };
        let mut turn = self.turn.lock().await;
        self.node.leads().await?;
        let (authority, next, former) =
            self.read(|held| (held.authority.clone(), held.next.clone(), held.former.clone()));
        let names = |names: Vec<&Name>| names.into_iter().map(Name::to_string).collect::<Vec<_>>();
        if message.abandon {
            let next = next.ok_or_else(|| {
                Status::new(Code::Refused, "there is no authority that does not sign yet: nothing to abandon")
            })?;
            self.commit(&mut turn, who, &Change::Abandoned(next.fingerprint())).await?;
            return Ok(reply("abandoned", Vec::new(), "the next authority is abandoned".into()));
        }
        if let Some(next) = next {
            let print = next.fingerprint();
            let waiting = self.read(|held| names(held.desk.without(&print)));
            if !waiting.is_empty() && !message.anyway {
                let text = format!("{} members do not believe the next authority yet", waiting.len());
                return Ok(reply("waits", waiting, text));
            }
            self.commit(&mut turn, who, &Change::Switched(print)).await?;
            return Ok(reply("switched", Vec::new(), format!("authority {} signs", hex(&print))));
        }
        if let Some(former) = former {
            let waiting = self.read(|held| names(held.desk.of_former()));
            if !waiting.is_empty() && !message.anyway {
                let text = format!("{} members have no certificate of the new authority yet", waiting.len());
                return Ok(reply("waits", waiting, text));
            }
            let print = join::authority_fingerprint(&former);
            self.commit(&mut turn, who, &Change::Retired(print)).await?;
            return Ok(reply("done", Vec::new(), format!("authority {} is believed no more", hex(&print))));
        }
        if message.going_on {
            return Ok(reply("done", Vec::new(), "the former authority is believed no more".into()));
        }
        if authority.is_none() {
            let text = "the cluster's authority has not reached the monitors yet: ask again";
            return Err(Status::new(Code::Unavailable, text).into());
        }
        let seal = self.seal.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            Status::new(
                Code::Unavailable,
                "the leading monitor has no seal key: move leadership (`nacre mon lead`), then ask again",
            )
        })?;
        let made = Authority::create(self.cluster, UnixTime::now(), AUTHORITY_LIFE).map_err(own)?;
        let sealed = seal.seal(PURPOSE, &made.keypair().key).map_err(own)?;
        let record = AuthorityRecord { certificate: made.certificate().to_vec(), sealed };
        let print = record.fingerprint();
        self.commit(&mut turn, who, &Change::NextMade(record)).await?;
        Ok(reply("begun", Vec::new(), format!("authority {} is believed besides; it does not sign yet", hex(&print))))
    }

    /// Everything an operator may see.
    pub fn list(&self) -> v1::CertListReply {
        let authorities = self.authorities();
        self.read(|held| v1::CertListReply {
            authorities,
            members: held.desk.members.iter().map(|(name, member)| wire::member_to(name, member)).collect(),
            tokens: held
                .desk
                .tokens
                .iter()
                .map(|(id, record)| v1::TokenRecord { hash: bytes::Bytes::new(), ..wire::token_to(*id, record) })
                .collect(),
            requests: held.desk.requests.iter().map(|(id, record)| wire::request_to(*id, record)).collect(),
        })
    }

    /// The authority's fingerprint, for logs.
    pub fn fingerprint(&self) -> Option<String> {
        self.read(|held| held.authority.as_ref().map(|record| hex(&join::authority_fingerprint(&record.certificate))))
    }
}
