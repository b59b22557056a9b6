//! Identities and changes of them as messages, and back. Total on any bytes that are a message.

use bytes::Bytes;
use nacre_mon_api::v1;
use nacre_mon_api::v1::identity_change::Change as Sent;
use nacre_net::identity::join::{
    Change as DeskChange, Gone, Held, Issued, Member, RequestId, RequestRecord, RequestState, TokenId, TokenRecord,
};
use nacre_net::identity::{IdentityError, Name, UnixTime};

use super::{AuthorityRecord, Change, Identities};

/// Why a message is no change and no state.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A name, a capability or whom a token is for.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A part that must be there, or of another length.
    #[error("{0} is missing or of a wrong length")]
    Missing(&'static str),
}

fn print(bytes: &Bytes, what: &'static str) -> Result<[u8; 32], WireError> {
    <[u8; 32]>::try_from(&bytes[..]).map_err(|_| WireError::Missing(what))
}

fn prints_to(prints: &[[u8; 32]]) -> Vec<Bytes> {
    prints.iter().map(|print| print.to_vec().into()).collect()
}

/// Fingerprints of authorities. There are never more than three.
pub fn prints_from(sent: &[Bytes]) -> Result<Vec<[u8; 32]>, WireError> {
    sent.iter().take(8).map(|bytes| print(bytes, "fingerprint of an authority")).collect()
}

fn issued_to(issued: &Issued) -> v1::IssuedRecord {
    v1::IssuedRecord {
        fingerprint: issued.fingerprint.to_vec().into(),
        certificate: issued.certificate.clone().into(),
        serial: issued.serial.clone().into(),
        at: issued.at.0,
        not_after: issued.not_after.0,
        former: false,
    }
}

fn issued_from(sent: Option<v1::IssuedRecord>) -> Result<Issued, WireError> {
    let sent = sent.ok_or(WireError::Missing("certificate"))?;
    Ok(Issued {
        fingerprint: print(&sent.fingerprint, "fingerprint")?,
        certificate: sent.certificate.to_vec(),
        serial: sent.serial.to_vec(),
        at: UnixTime(sent.at),
        not_after: UnixTime(sent.not_after),
    })
}

/// A member.
pub fn member_to(name: &Name, member: &Member) -> v1::Enrolled {
    let held = |held: &Held| v1::IssuedRecord {
        fingerprint: held.fingerprint.to_vec().into(),
        certificate: Bytes::new(),
        serial: held.serial.clone().into(),
        at: held.at.0,
        not_after: held.not_after.0,
        former: held.former,
    };
    v1::Enrolled {
        name: name.to_string(),
        caps: member.caps.to_string(),
        generation: member.generation,
        held: member.held.iter().map(held).collect(),
        gone: member.gone.as_ref().map(|gone| v1::GoneRecord {
            by: gone.by.to_string(),
            why: gone.why.clone(),
            at: gone.at.0,
            until: gone.until.0,
        }),
        trusts: prints_to(&member.trusts),
    }
}

fn member_from(sent: Option<v1::Enrolled>) -> Result<(Name, Member), WireError> {
    let sent = sent.ok_or(WireError::Missing("member"))?;
    let held = |held: v1::IssuedRecord| {
        Ok(Held {
            fingerprint: print(&held.fingerprint, "fingerprint")?,
            serial: held.serial.to_vec(),
            at: UnixTime(held.at),
            not_after: UnixTime(held.not_after),
            former: held.former,
        })
    };
    let gone = |gone: v1::GoneRecord| {
        Ok::<_, WireError>(Gone {
            by: gone.by.parse()?,
            why: gone.why,
            at: UnixTime(gone.at),
            until: UnixTime(gone.until),
        })
    };
    let member = Member {
        caps: sent.caps.parse()?,
        generation: sent.generation,
        held: sent.held.into_iter().map(held).collect::<Result<_, WireError>>()?,
        gone: sent.gone.map(gone).transpose()?,
        trusts: prints_from(&sent.trusts)?,
    };
    Ok((sent.name.parse()?, member))
}

fn whole(name: Option<&Name>, member: &Member) -> Option<v1::Enrolled> {
    let mut sent = v1::Enrolled {
        caps: member.caps.to_string(),
        generation: member.generation,
        trusts: prints_to(&member.trusts),
        ..Default::default()
    };
    if let Some(name) = name {
        sent = member_to(name, member);
    }
    Some(sent)
}

/// A token, with what it got or without.
pub fn token_to(id: TokenId, record: &TokenRecord) -> v1::TokenRecord {
    v1::TokenRecord {
        id: id.0,
        hash: record.hash.to_vec().into(),
        whom: record.whom.to_string(),
        caps: record.caps.to_string(),
        expires: record.expires.0,
        used: record.used.as_ref().map(issued_to),
    }
}

fn token_from(sent: v1::TokenRecord) -> Result<(TokenId, TokenRecord), WireError> {
    let record = TokenRecord {
        hash: print(&sent.hash, "hash of a token")?,
        whom: sent.whom.parse()?,
        caps: sent.caps.parse()?,
        expires: UnixTime(sent.expires),
        used: sent.used.map(|used| issued_from(Some(used))).transpose()?,
    };
    Ok((TokenId(sent.id), record))
}

/// A signing request.
pub fn request_to(id: RequestId, record: &RequestRecord) -> v1::SigningRecord {
    let mut sent = v1::SigningRecord {
        id: id.0,
        request: record.request.clone().into(),
        name: record.name.to_string(),
        caps: record.caps.to_string(),
        fingerprint: record.fingerprint.to_vec().into(),
        at: record.at.0,
        approved: None,
        denied: None,
    };
    match &record.state {
        RequestState::Waiting => {}
        RequestState::Approved(issued) => sent.approved = Some(issued_to(issued)),
        RequestState::Denied { by, why, at } => sent.denied = Some(denial(by, why, *at)),
    }
    sent
}

fn request_from(sent: v1::SigningRecord) -> Result<(RequestId, RequestRecord), WireError> {
    let state = match (sent.approved, sent.denied) {
        (None, None) => RequestState::Waiting,
        (approved @ Some(_), _) => RequestState::Approved(issued_from(approved)?),
        (None, Some(v1::Denial { by, why, at })) => RequestState::Denied { by: by.parse()?, why, at: UnixTime(at) },
    };
    let record = RequestRecord {
        request: sent.request.to_vec(),
        name: sent.name.parse()?,
        caps: sent.caps.parse()?,
        fingerprint: print(&sent.fingerprint, "fingerprint")?,
        at: UnixTime(sent.at),
        state,
    };
    Ok((RequestId(sent.id), record))
}

fn denial(by: &Name, why: &str, at: UnixTime) -> v1::Denial {
    v1::Denial { by: by.to_string(), why: why.to_owned(), at: at.0 }
}

fn denial_from(sent: Option<v1::Denial>) -> Result<(Name, String, UnixTime), WireError> {
    let sent = sent.ok_or(WireError::Missing("who decided"))?;
    Ok((sent.by.parse()?, sent.why, UnixTime(sent.at)))
}

fn authority_to(authority: &AuthorityRecord) -> v1::AuthorityRecord {
    v1::AuthorityRecord { certificate: authority.certificate.clone().into(), sealed: authority.sealed.clone().into() }
}

fn authority_from(sent: v1::AuthorityRecord) -> AuthorityRecord {
    AuthorityRecord { certificate: sent.certificate.to_vec(), sealed: sent.sealed.to_vec() }
}

/// A change, for the log.
pub fn change_to(change: &Change) -> v1::IdentityChange {
    use DeskChange as C;
    let sent = match change {
        Change::Born(authority, members) => Sent::Born(v1::Born {
            authority: Some(authority_to(authority)),
            members: members.iter().map(|(name, member)| member_to(name, member)).collect(),
        }),
        Change::NextMade(record) => Sent::NextMade(authority_to(record)),
        Change::Switched(of) => Sent::Switched(of.to_vec().into()),
        Change::Retired(of) => Sent::Retired(of.to_vec().into()),
        Change::Abandoned(of) => Sent::Abandoned(of.to_vec().into()),
        Change::Desk(change) => match change {
            C::TokenMade { id, record } => Sent::TokenMade(token_to(*id, record)),
            C::TokenDropped(id) => Sent::TokenDropped(id.0),
            C::TokenUsed { id, name, member, issued } => Sent::TokenUsed(v1::TokenUsed {
                id: id.0,
                member: whole(Some(name), member),
                issued: Some(issued_to(issued)),
            }),
            C::Asked { id, record } => Sent::Asked(request_to(*id, record)),
            C::Approved { id, member, issued } => {
                Sent::Approved(v1::Approved { id: id.0, member: whole(None, member), issued: Some(issued_to(issued)) })
            }
            C::Denied { id, by, why, at } => Sent::Denied(v1::Denied { id: id.0, denial: Some(denial(by, why, *at)) }),
            C::MemberSet { name, member } => Sent::MemberSet(member_to(name, member)),
            C::Renewed { name, generation, issued, trusts } => Sent::Renewed(v1::Renewed {
                name: name.to_string(),
                generation: *generation,
                issued: Some(issued_to(issued)),
                trusts: prints_to(trusts),
            }),
            C::Revoked { name, by, why, at } => {
                Sent::Revoked(v1::NameRevoked { name: name.to_string(), denial: Some(denial(by, why, *at)) })
            }
            C::Swept(at) => Sent::Swept(at.0),
        },
    };
    v1::IdentityChange { change: Some(sent) }
}

/// A change, out of the log.
pub fn change_from(sent: v1::IdentityChange) -> Result<Change, WireError> {
    use DeskChange as C;
    Ok(Change::Desk(match sent.change.ok_or(WireError::Missing("change"))? {
        Sent::Born(born) => {
            let authority = authority_from(born.authority.ok_or(WireError::Missing("authority"))?);
            let members = born.members.into_iter().map(|member| member_from(Some(member)));
            return Ok(Change::Born(authority, members.collect::<Result<_, _>>()?));
        }
        Sent::NextMade(record) => return Ok(Change::NextMade(authority_from(record))),
        Sent::Switched(of) => return Ok(Change::Switched(print(&of, "fingerprint of an authority")?)),
        Sent::Retired(of) => return Ok(Change::Retired(print(&of, "fingerprint of an authority")?)),
        Sent::Abandoned(of) => return Ok(Change::Abandoned(print(&of, "fingerprint of an authority")?)),
        Sent::TokenMade(sent) => {
            let (id, record) = token_from(sent)?;
            C::TokenMade { id, record }
        }
        Sent::TokenDropped(id) => C::TokenDropped(TokenId(id)),
        Sent::TokenUsed(sent) => {
            let (name, member) = member_from(sent.member)?;
            C::TokenUsed { id: TokenId(sent.id), name, member, issued: issued_from(sent.issued)? }
        }
        Sent::Asked(sent) => {
            let (id, record) = request_from(sent)?;
            C::Asked { id, record }
        }
        Sent::Approved(sent) => {
            let member = sent.member.ok_or(WireError::Missing("member"))?;
            let trusts = prints_from(&member.trusts)?;
            let member = Member { trusts, ..Member::new(member.caps.parse()?, member.generation) };
            C::Approved { id: RequestId(sent.id), member, issued: issued_from(sent.issued)? }
        }
        Sent::Denied(sent) => {
            let (by, why, at) = denial_from(sent.denial)?;
            C::Denied { id: RequestId(sent.id), by, why, at }
        }
        Sent::MemberSet(sent) => {
            let (name, member) = member_from(Some(sent))?;
            C::MemberSet { name, member }
        }
        Sent::Renewed(sent) => {
            let trusts = prints_from(&sent.trusts)?;
            C::Renewed {
                name: sent.name.parse()?,
                generation: sent.generation,
                issued: issued_from(sent.issued)?,
                trusts,
            }
        }
        Sent::Revoked(sent) => {
            let (by, why, at) = denial_from(sent.denial)?;
            C::Revoked { name: sent.name.parse()?, by, why, at }
        }
        Sent::Swept(at) => C::Swept(UnixTime(at)),
    }))
}

impl Identities {
    /// For a snapshot.
    pub fn encode(&self) -> v1::Identities {
        v1::Identities {
            authority: self.authority.as_ref().map(authority_to),
            members: self.desk.members.iter().map(|(name, member)| member_to(name, member)).collect(),
            tokens: self.desk.tokens.iter().map(|(id, record)| token_to(*id, record)).collect(),
            requests: self.desk.requests.iter().map(|(id, record)| request_to(*id, record)).collect(),
            changes: self.changes,
            next: self.next.as_ref().map(authority_to),
            former: self.former.clone().unwrap_or_default().into(),
        }
    }

    /// From a snapshot.
    pub fn decode(sent: Option<v1::Identities>) -> Result<Identities, WireError> {
        let Some(sent) = sent else { return Ok(Identities::default()) };
        let mut this = Identities {
            authority: sent.authority.map(authority_from),
            next: sent.next.map(authority_from),
            former: Some(sent.former.to_vec()).filter(|former| !former.is_empty()),
            changes: sent.changes,
            ..Identities::default()
        };
        this.desk.members = sent.members.into_iter().map(|sent| member_from(Some(sent))).collect::<Result<_, _>>()?;
        this.desk.tokens = sent.tokens.into_iter().map(token_from).collect::<Result<_, _>>()?;
        this.desk.requests = sent.requests.into_iter().map(request_from).collect::<Result<_, _>>()?;
        Ok(this)
    }
}

#[cfg(test)]
#[path = "identity_test.rs"]
mod tests;
