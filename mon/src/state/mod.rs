//! What the log decides. [`State`] is a value: the same entries in the same order give the same state on every monitor.
//! No clock, no randomness, no I/O: what a command needs of these the leader writes into the entry.

pub mod events;
pub mod machine;
pub mod sessions;

use bytes::Bytes;
use nacre_mon_api::v1;
use nacre_proto::status::{Code, Status};
use openraft::EntryPayload;
use prost::Message;

use crate::raft::convert::{self, ConvertError};
use crate::raft::{Entry, LogId, Outcome, Request, StoredMembership};
use events::{AUDIT, CLUSTER, Events};
use sessions::Sessions;

/// Why bytes are not a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No message at all.
    #[error("monitor state is unreadable: {0}")]
    Message(#[from] prost::DecodeError),
    /// A message that makes no sense.
    #[error("monitor state makes no sense: {0}")]
    Convert(#[from] ConvertError),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// Who votes.
    pub membership: StoredMembership,
    /// What clients asked for.
    pub sessions: Sessions,
    /// The cluster log.
    pub events: Events,
    /// Commands done.
    pub commands: u64,
}

impl State {
    /// Applies one entry. Blank and membership entries have no outcome of their own.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Outcome::default(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Outcome::default()
            }
            EntryPayload::Normal(request) => {
                if let Some(outcome) = self.sessions.answer(request) {
                    return outcome;
                }
                let outcome = match self.execute(request) {
                    Ok(outcome) => outcome,
                    Err(status) => Outcome { code: status.code.number(), text: status.text, ..Outcome::default() },
                };
                self.sessions.remember(request, entry.log_id.index, &outcome);
                self.commands += 1;
                outcome
            }
        }
    }

    fn execute(&mut self, request: &Request) -> Result<Outcome, Status> {
        let command = v1::Command::decode(request.command.clone())
            .map_err(|error| Status::new(Code::Invalid, format!("the command is unreadable: {error}")))?;
        let verb = command.verb.ok_or_else(|| {
            Status::new(Code::Unsupported, "the command is of a later release: upgrade the monitors first")
        })?;
        match verb {
            v1::command::Verb::Note(note) => {
                let channel = if note.channel == AUDIT { AUDIT } else { CLUSTER };
                self.events.push(v1::Event {
                    number: 0,
                    at_ms: request.at_ms,
                    channel: channel.into(),
                    level: note.level,
                    who: request.who.clone(),
                    text: note.text,
                });
                Ok(Outcome { text: "noted".into(), ..Outcome::default() })
            }
        }
    }

    /// For a snapshot.
    pub fn encode(&self) -> Bytes {
        let (events, next_event) = self.events.encode();
        let message = v1::State {
            applied: self.applied.as_ref().map(convert::log_id_to),
            membership: Some(convert::stored_membership_to(&self.membership)),
            sessions: self.sessions.encode(),
            map: Bytes::new(),
            events,
            next_event,
            next_incarnation: 0,
            commands: self.commands,
        };
        message.encode_to_vec().into()
    }

    /// From a snapshot.
    pub fn decode(bytes: Bytes) -> Result<State, StateError> {
        let message = v1::State::decode(bytes)?;
        Ok(State {
            applied: convert::log_id_from(message.applied)?,
            membership: convert::stored_membership_from(message.membership)?,
            sessions: Sessions::decode(message.sessions),
            events: Events::decode(message.events, message.next_event),
            commands: message.commands,
        })
    }
}
