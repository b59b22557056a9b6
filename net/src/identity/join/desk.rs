//! The desk itself: its verbs, and what a change does to it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Change, Gone, Held, Issued, JoinError, MAX_TOKEN_LIFE, MAX_WAITING, Member, REMEMBERED_FOR, RequestId,
    RequestRecord, RequestState, Token, TokenId, TokenRecord, WAITING_FOR, Whom,
};
use crate::identity::authority::SigningRequest;
use crate::identity::{Caps, Grant, Identity, IdentityError, Name, UnixTime};

/// What the leader must sign before the change can be made.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// The request.
    pub request: SigningRequest,
    /// What the certificate shall say.
    pub grant: Grant,
    key: Signed,
}

#[derive(Clone, Debug)]
enum Signed {
    Token(TokenId),
    Request(RequestId),
}

impl ToSign {
    /// The change, with the certificate that [`crate::identity::Authority::sign`] gave.
    pub fn signed(self, certificate: Vec<u8>, at: UnixTime) -> Result<Change, IdentityError> {
        let issued = Issued::of(certificate, self.request.fingerprint(), at)?;
        let member = Member::new(self.grant.caps, self.grant.generation);
        Ok(match self.key {
            Signed::Token(id) => Change::TokenUsed { id, name: self.grant.name, member, issued },
            Signed::Request(id) => Change::Approved { id, member, issued },
        })
    }
}

/// What a newcomer is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Sign this, make the change, then hand out the certificate.
    Sign(Box<ToSign>),
    /// This certificate was made before.
    Certificate(Vec<u8>),
    /// Make this change (if any) and let it ask again later.
    Wait(RequestId, Option<Box<Change>>),
    /// An operator said no.
    Denied(String),
}

/// The desk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desk {
    /// Members by name.
    pub members: BTreeMap<Name, Member>,
    /// Tokens.
    pub tokens: BTreeMap<TokenId, TokenRecord>,
    /// Signing requests.
    pub requests: BTreeMap<RequestId, RequestRecord>,
}

impl Desk {
    /// A new token. The secret is in the first part only.
    #[must_use]
    pub fn make_token(
        &self,
        whom: Whom,
        caps: Caps,
        authority: &[u8],
        now: UnixTime,
        life: Duration,
    ) -> (Token, Change) {
        let token = Token::draw(authority);
        let expires = now.after(life.min(MAX_TOKEN_LIFE));
        let record = TokenRecord { hash: token.hash(), whom, caps, expires, used: None };
        let change = Change::TokenMade { id: token.id, record };
        (token, change)
    }

    /// A newcomer shows a token.
    pub fn redeem(&self, token: &Token, request: SigningRequest, now: UnixTime) -> Result<Answer, JoinError> {
        let invalid = || JoinError::TokenInvalid { name: request.name().clone() };
        let record = self.tokens.get(&token.id).ok_or_else(invalid)?;
        // blake3::Hash compares in constant time.
        if blake3::Hash::from_bytes(record.hash) != blake3::Hash::from_bytes(token.hash()) {
            return Err(invalid());
        }
        if let Some(used) = &record.used {
            let same = used.fingerprint == request.fingerprint();
            return if same { Ok(Answer::Certificate(used.certificate.clone())) } else { Err(invalid()) };
        }
        if now >= record.expires {
            return Err(invalid());
        }
        if !record.whom.admits(request.name()) {
            return Err(JoinError::TokenForAnother { token: record.whom.clone(), name: request.name().clone() });
        }
        let grant = self.grant_anew(request.name(), record.caps.clone());
        Ok(Answer::Sign(Box::new(ToSign { request, grant, key: Signed::Token(token.id) })))
    }

    /// A newcomer asks without a token, for the first time or again to hear what became of it.
    pub fn ask(&self, request: &SigningRequest, der: &[u8], now: UnixTime) -> Result<Answer, JoinError> {
        let id = RequestId::of(request);
        match self.requests.get(&id) {
            Some(record) if record.fingerprint != request.fingerprint() => Err(JoinError::Full),
            Some(RequestRecord { state: RequestState::Waiting, .. }) => Ok(Answer::Wait(id, None)),
            Some(RequestRecord { state: RequestState::Approved(issued), .. }) => {
                Ok(Answer::Certificate(issued.certificate.clone()))
            }
            Some(RequestRecord { state: RequestState::Denied { why, .. }, .. }) => Ok(Answer::Denied(why.clone())),
            None => {
                let waiting = self.requests.values().filter(|r| r.state == RequestState::Waiting).count();
                if waiting >= MAX_WAITING {
                    return Err(JoinError::Full);
                }
                let record = RequestRecord {
                    request: der.to_vec(),
                    name: request.name().clone(),
                    caps: request.caps().clone(),
                    fingerprint: request.fingerprint(),
                    at: now,
                    state: RequestState::Waiting,
                };
                Ok(Answer::Wait(id, Some(Box::new(Change::Asked { id, record }))))
            }
        }
    }

    /// An operator approves, with the capabilities asked for or with others.
    pub fn approve(&self, id: RequestId, caps: Option<Caps>) -> Result<ToSign, JoinError> {
        let record = self.waiting(id)?;
        let request = SigningRequest::read(&record.request).map_err(|_| JoinError::NoRequest(id))?;
        let grant = self.grant_anew(&record.name, caps.unwrap_or_else(|| record.caps.clone()));
        Ok(ToSign { request, grant, key: Signed::Request(id) })
    }

    /// An operator refuses.
    pub fn deny(&self, id: RequestId, by: Name, why: &str, now: UnixTime) -> Result<Change, JoinError> {
        self.waiting(id)?;
        Ok(Change::Denied { id, by, why: why.to_owned(), at: now })
    }

    /// A member renews: what its next certificate shall say. Nothing changes at the desk, so followers can sign too.
    pub fn renew(&self, who: &Identity, request: &SigningRequest) -> Result<Grant, JoinError> {
        if *request.name() != who.name {
            return Err(JoinError::NotYours { who: who.name.clone(), name: request.name().clone() });
        }
        match self.members.get(&who.name) {
            Some(member) if who.generation == member.generation && member.gone.is_none() => {
                Ok(Grant { name: who.name.clone(), caps: member.caps.clone(), generation: member.generation })
            }
            _ => Err(JoinError::Unknown(who.name.clone())),
        }
    }

    /// New capabilities for a member. Its certificates so far are void; it must join anew only if `rejoin`, otherwise
    /// they stay good until renewed (use that to grant more, never to take away).
    pub fn set_caps(&self, name: &Name, caps: Caps, rejoin: bool) -> Result<Change, JoinError> {
        let member = self.members.get(name).ok_or_else(|| JoinError::Unknown(name.clone()))?;
        let generation = member.generation.saturating_add(u64::from(rejoin));
        let member = Member { caps, generation, ..member.clone() };
        Ok(Change::MemberSet { name: name.clone(), member })
    }

    /// No certificate of this name is believed any more.
    pub fn revoke(&self, name: &Name, by: Name, why: &str, now: UnixTime) -> Result<Change, JoinError> {
        match self.members.get(name) {
            Some(Member { gone: None, .. }) => {
                Ok(Change::Revoked { name: name.clone(), by, why: why.to_owned(), at: now })
            }
            _ => Err(JoinError::Unknown(name.clone())),
        }
    }

    /// The least generation each name is believed at: goes into the map's [`crate::identity::Revocations`] when it changes.
    #[must_use]
    pub fn least_generation(&self, name: &Name) -> Option<u64> {
        self.members.get(name).map(|m| m.generation)
    }

    /// What to forget at `now`, if anything.
    #[must_use]
    pub fn sweep(&self, now: UnixTime) -> Option<Change> {
        let due = self.tokens.values().any(|t| !keep_token(t, now))
            || self.requests.values().any(|r| !keep_request(r, now))
            || self.members.values().any(|m| m.held.iter().any(|h| h.not_after <= now) || !keep_member(m, now));
        due.then_some(Change::Swept(now))
    }

    /// Makes a change. Total and deterministic: a change that no longer fits does nothing. Gives the certificates that
    /// are void because of it, which the map must name.
    #[must_use = "what is given must be revoked"]
    pub fn apply(&mut self, change: &Change) -> Vec<Held> {
        match change {
            Change::TokenMade { id, record } => {
                self.tokens.entry(*id).or_insert_with(|| record.clone());
            }
            Change::TokenDropped(id) => {
                self.tokens.remove(id);
            }
            Change::TokenUsed { id, name, member, issued } => {
                if let Some(record) = self.tokens.get_mut(id).filter(|r| r.used.is_none()) {
                    record.used = Some(issued.clone());
                    return self.enroll(name, member, Some(issued));
                }
            }
            Change::Asked { id, record } => {
                let waiting = self.requests.values().filter(|r| r.state == RequestState::Waiting).count();
                if waiting < MAX_WAITING {
                    self.requests.entry(*id).or_insert_with(|| record.clone());
                }
            }
            Change::Approved { id, member, issued } => {
                if let Some(record) = self.requests.get_mut(id).filter(|r| r.state == RequestState::Waiting) {
                    record.state = RequestState::Approved(issued.clone());
                    let name = record.name.clone();
                    return self.enroll(&name, member, Some(issued));
                }
            }
            Change::Denied { id, by, why, at } => {
                if let Some(record) = self.requests.get_mut(id).filter(|r| r.state == RequestState::Waiting) {
                    record.state = RequestState::Denied { by: by.clone(), why: why.clone(), at: *at };
                }
            }
            Change::MemberSet { name, member } => return self.enroll(name, member, None),
            Change::Renewed { name, generation, issued, trusts } => {
                let member = self.members.get_mut(name);
                if let Some(member) = member.filter(|m| m.generation == *generation && m.gone.is_none()) {
                    member.held.retain(|held| held.not_after > issued.at);
                    member.held.push(issued.held());
                    member.trusts.clone_from(trusts);
                }
            }
            Change::Revoked { name, by, why, at } => {
                if let Some(member) = self.members.get_mut(name).filter(|m| m.gone.is_none()) {
                    let until = member.held.iter().map(|held| held.not_after).max().unwrap_or(*at);
                    member.gone = Some(Gone { by: by.clone(), why: why.clone(), at: *at, until });
                    member.generation = member.generation.saturating_add(1);
                    return std::mem::take(&mut member.held);
                }
            }
            Change::Swept(now) => self.forget(*now),
        }
        Vec::new()
    }

    /// Another authority signs from now on: what members hold is of the former one.
    pub fn switched(&mut self) {
        self.members.values_mut().flat_map(|member| &mut member.held).for_each(|held| held.former = true);
    }

    /// Members that do not believe this authority, as far as they have said.
    #[must_use]
    pub fn without(&self, authority: &[u8; 32]) -> Vec<&Name> {
        self.present().filter(|(_, member)| !member.trusts.contains(authority)).map(|(name, _)| name).collect()
    }

    /// Members whose newest certificate the former authority has signed.
    #[must_use]
    pub fn of_former(&self) -> Vec<&Name> {
        let former = |member: &Member| member.held.last().is_some_and(|held| held.former);
        self.present().filter(|(_, member)| former(member)).map(|(name, _)| name).collect()
    }

    /// Those that hold a certificate.
    fn present(&self) -> impl Iterator<Item = (&Name, &Member)> {
        self.members.iter().filter(|(_, member)| member.gone.is_none() && !member.held.is_empty())
    }

    fn enroll(&mut self, name: &Name, member: &Member, issued: Option<&Issued>) -> Vec<Held> {
        let mut next = member.clone();
        let mut void = Vec::new();
        if let Some(before) = self.members.remove(name) {
            // A generation never goes back, also if two grants for one name were signed at the same time. What was
            // issued for an earlier one is void.
            next.generation = next.generation.max(before.generation);
            if next.generation == before.generation {
                next.held = before.held;
            } else {
                next.held.clear();
                void = before.held;
            }
        }
        next.held.extend(issued.map(Issued::held));
        self.members.insert(name.clone(), next);
        void
    }

    fn forget(&mut self, now: UnixTime) {
        self.tokens.retain(|_, t| keep_token(t, now));
        self.requests.retain(|_, r| keep_request(r, now));
        self.members.retain(|_, m| keep_member(m, now));
        self.members.values_mut().for_each(|m| m.held.retain(|held| held.not_after > now));
    }

    fn grant_anew(&self, name: &Name, caps: Caps) -> Grant {
        let generation = self.members.get(name).map_or(0, |m| m.generation.saturating_add(1));
        Grant { name: name.clone(), caps, generation }
    }

    fn waiting(&self, id: RequestId) -> Result<&RequestRecord, JoinError> {
        let record = self.requests.get(&id).ok_or(JoinError::NoRequest(id))?;
        match record.state {
            RequestState::Waiting => Ok(record),
            RequestState::Approved(_) => Err(JoinError::Decided { id, state: "approved" }),
            RequestState::Denied { .. } => Err(JoinError::Decided { id, state: "denied" }),
        }
    }
}

fn keep_token(token: &TokenRecord, now: UnixTime) -> bool {
    match &token.used {
        None => now < token.expires,
        Some(used) => now < used.at.after(REMEMBERED_FOR),
    }
}

fn keep_request(request: &RequestRecord, now: UnixTime) -> bool {
    match &request.state {
        RequestState::Waiting => now < request.at.after(WAITING_FOR),
        RequestState::Approved(issued) => now < issued.at.after(REMEMBERED_FOR),
        RequestState::Denied { at, .. } => now < at.after(REMEMBERED_FOR),
    }
}

fn keep_member(member: &Member, now: UnixTime) -> bool {
    member.gone.as_ref().is_none_or(|gone| now < gone.until)
}

#[cfg(test)]
#[path = "desk_test.rs"]
mod tests;
