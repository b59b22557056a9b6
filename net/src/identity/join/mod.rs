//! How a process that has no certificate yet gets its first one, how members renew theirs, and how a name is revoked.
//! A value that is told the time. Its verbs read the state and answer with a [`Change`]; [`Desk::apply`] alone changes
//! it. The monitors agree on changes and keep them; the leader signs with [`super::Authority`] between the two steps,
//! because signatures are random and what is applied must not be.
//!
//! Two ways in, as a kubelet joins its cluster:
//! - **Token.** An administrator makes a one-time token for a name (or for any id of a kind). Whoever shows it, before
//!   it expires, is granted that name at once. The token also carries the fingerprint of the authority, so the newcomer
//!   knows that it speaks to the right cluster before it sends its secret.
//! - **Approval.** A newcomer sends a signing request. It waits until an administrator has compared the fingerprint of
//!   its key and approves or denies it.
//!
//! Invariants:
//! 1. A token is worth one key: shown again with the same key it gives the same certificate (the answer was lost), with
//!    any other key nothing.
//! 2. Secrets are not kept, only their hash.
//! 3. What strangers can make the desk remember is bounded: [`MAX_WAITING`] requests, each [`WAITING_FOR`] at most.
//! 4. Granting a name to a new key raises the name's generation; what was issued for it before is no longer believed.
//! 5. A renewal grants what the desk has on record, never what the request or the old certificate says.

mod desk;
mod record;
mod token;

pub use desk::{Answer, Desk, ToSign};
pub use record::{Change, Gone, Held, Issued, Member, RequestRecord, RequestState, TokenRecord};
pub use token::{KindWord, RequestId, Token, TokenId, Whom, authority_fingerprint, hex, unhex};

use std::time::Duration;

use super::Name;

/// How many requests may wait for an operator.
pub const MAX_WAITING: usize = 256;
/// How long one waits before it is forgotten.
pub const WAITING_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a used token or a decided request is remembered, so that a lost answer can be asked for again.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// The longest life of a token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What goes wrong at the desk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Text that is no token.
    #[error("this is not a join token; one is made by `nacre cert token NAME` and starts with nacre-join-1.")]
    NotAToken,
    /// Unknown, expired, used by another, or with a wrong secret: not told apart to strangers.
    #[error("the join token is not valid (any more); make a new one with `nacre cert token {name}`")]
    TokenInvalid {
        /// For whom it was shown.
        name: Name,
    },
    /// A token for something else.
    #[error("the join token is for {token}, not for {name}")]
    TokenForAnother {
        /// What it is for.
        token: Whom,
        /// Who showed it.
        name: Name,
    },
    /// Too many wait.
    #[error("{MAX_WAITING} signing requests wait already; decide some with `nacre cert list`, then ask again")]
    Full,
    /// No such request.
    #[error("there is no signing request {0}; `nacre cert list` shows what waits")]
    NoRequest(RequestId),
    /// Decided before.
    #[error("signing request {id} was {state} already")]
    Decided {
        /// Which.
        id: RequestId,
        /// How.
        state: &'static str,
    },
    /// A renewal by someone the desk does not know (any more).
    #[error("{0} is not known to this cluster; let it join anew")]
    Unknown(Name),
    /// A member asks for another's name.
    #[error("{who} cannot renew the certificate of {name}")]
    NotYours {
        /// Who asks.
        who: Name,
        /// For what.
        name: Name,
    },
}
