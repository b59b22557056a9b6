//! What the log decides. [`State`] is a value: the same entries in the same order give the same state on every monitor.
//! No clock, no randomness, no I/O: what a command needs of these the leader writes into the entry.

pub mod events;
pub mod hub;
pub mod machine;
pub mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_maps::map::{Mon, Table};
use nacre_maps::{ClusterMap, Draft, Increment};
use nacre_mon_api::v1;
use nacre_proto::ids::MonId;
use nacre_proto::status::{Code, Status};
use openraft::EntryPayload;
use prost::Message;

use crate::raft::convert::{self, ConvertError};
use crate::raft::{Entry, LogId, Membership, Outcome, Request, StoredMembership};
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
    /// A map that is none.
    #[error("monitor state: {0}")]
    Map(#[from] nacre_maps::codec::DecodeError),
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
    /// The cluster map.
    pub map: Arc<ClusterMap>,
}

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// For whoever sent the command.
    pub outcome: Outcome,
    /// For subscribers of the map.
    pub increment: Option<Increment>,
}

impl State {
    /// Applies one entry. Blank and membership entries have no outcome of their own.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Applied::default(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                let map = self.map.clone();
                let mut draft = Draft::of(&map, map.modified);
                roster(&mut draft, membership);
                Applied { outcome: Outcome::default(), increment: self.adopt(draft) }
            }
            EntryPayload::Normal(request) => {
                if let Some(outcome) = self.sessions.answer(request) {
                    return Applied { outcome, increment: None };
                }
                let mut applied = self.execute(request).unwrap_or_else(|status| Applied {
                    outcome: Outcome { code: status.code.number(), text: status.text, ..Outcome::default() },
                    increment: None,
                });
                applied.outcome.epoch = self.map.epoch.0;
                self.sessions.remember(request, entry.log_id.index, &applied.outcome);
                self.commands += 1;
                applied
            }
        }
    }

    /// Makes the draft the map.
    fn adopt(&mut self, draft: Draft<'_>) -> Option<Increment> {
        let next = draft.clone();
        let increment = draft.finish()?;
        self.map = Arc::new(ClusterMap::clone(&next));
        Some(increment)
    }

    fn execute(&mut self, request: &Request) -> Result<Applied, Status> {
        let command = v1::Command::decode(request.command.clone())
            .map_err(|error| Status::new(Code::Invalid, format!("the command is unreadable: {error}")))?;
        let verb = command.verb.ok_or_else(|| {
            Status::new(Code::Unsupported, "the command is of a later release: upgrade the monitors first")
        })?;
        match verb {
            v1::command::Verb::Note(note) => {
                let channel = if note.channel == AUDIT { AUDIT } else { CLUSTER };
                self.log(request, channel, &note.level, note.text);
                Ok(Applied { outcome: Outcome { text: "noted".into(), ..Outcome::default() }, increment: None })
            }
        }
    }

    fn log(&mut self, request: &Request, channel: &str, level: &str, text: String) {
        self.events.push(v1::Event {
            number: 0,
            at_ms: request.at_ms,
            channel: channel.into(),
            level: level.into(),
            who: request.who.clone(),
            text,
        });
    }

    /// For a snapshot.
    pub fn encode(&self) -> Bytes {
        let (events, next_event) = self.events.encode();
        let message = v1::State {
            applied: self.applied.as_ref().map(convert::log_id_to),
            membership: Some(convert::stored_membership_to(&self.membership)),
            sessions: self.sessions.encode(),
            map: self.map.encode().into(),
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
            map: Arc::new(ClusterMap::decode(&message.map)?),
        })
    }
}

/// Writes the members of the quorum into the map, where everyone else finds the monitors.
fn roster(draft: &mut Draft<'_>, membership: &Membership) {
    let members: BTreeMap<MonId, Mon> = membership
        .nodes()
        .map(|(node, member)| {
            let learner = !membership.voter_ids().any(|voter| voter == *node);
            let known = draft.mons.get(&MonId(member.mon)).map(|mon| Mon::clone(mon)).unwrap_or_default();
            let mon = Mon {
                name: format!("mon.{}", member.mon),
                addrs: member.address.parse().into_iter().collect(),
                learner,
                ..known
            };
            (MonId(member.mon), mon)
        })
        .collect();
    let gone: Vec<MonId> = draft.mons.keys().copied().filter(|mon| !members.contains_key(mon)).collect();
    for mon in gone {
        draft.mons.remove(&mon);
    }
    for (mon, entry) in members {
        let _always_fits = draft.mons.set(mon, Arc::new(entry));
    }
}
