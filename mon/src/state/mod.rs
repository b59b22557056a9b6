//! What the log decides. [`State`] is a value: the same entries in the same order give the same state on every monitor.
//! No clock, no randomness, no I/O: what a command needs of these the leader writes into the entry.

pub mod events;
pub mod hub;
pub mod machine;
pub mod past;
pub mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_maps::map::{Anchor, Mon, Table};
use nacre_maps::rules::{self, Asker};
use nacre_maps::{ClusterMap, Draft, Increment};
use nacre_mon_api::v1;
use nacre_net::identity::join::authority_fingerprint;
use nacre_proto::ids::{MonId, Stamp};
use nacre_proto::status::{Code, Status};
use nacre_proto::v1::MapCommand;
use openraft::EntryPayload;
use prost::Message;

use crate::identity::{Identities, wire};
use crate::raft::convert::{self, ConvertError};
use crate::raft::{Entry, LogId, Membership, Outcome, Request, StoredMembership};
use events::{AUDIT, CLUSTER, Events};
use past::Past;
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
    /// Identities that are none.
    #[error("monitor state: identities: {0}")]
    Identities(#[from] wire::WireError),
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
    /// How it came to be that, as far back as it is kept.
    pub past: Past,
    /// Who belongs to the cluster.
    pub identities: Identities,
}

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// For whoever sent the command.
    pub outcome: Outcome,
    /// For subscribers of the map, in order.
    pub increments: Vec<Increment>,
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
                let increments: Vec<Increment> = draft.finish().into_iter().collect();
                self.adopt(&increments);
                Applied { outcome: Outcome::default(), increments }
            }
            EntryPayload::Normal(request) => {
                if let Some(outcome) = self.sessions.answer(request) {
                    return Applied { outcome, increments: Vec::new() };
                }
                let mut applied = self.execute(request).unwrap_or_else(|status| {
                    if !request.is_by_daemon() {
                        self.log(request, AUDIT, "warn", format!("refused: {}", status.text));
                    }
                    let outcome = Outcome { code: status.code.number(), text: status.text, ..Outcome::default() };
                    Applied { outcome, increments: Vec::new() }
                });
                applied.outcome.epoch = self.map.epoch.0;
                self.sessions.remember(request, entry.log_id.index, &applied.outcome);
                self.commands += 1;
                applied
            }
        }
    }

    /// Applies increments that were made from the map as it is.
    fn adopt(&mut self, increments: &[Increment]) {
        for increment in increments {
            match self.map.apply(increment) {
                Ok(map) => {
                    self.map = Arc::new(map);
                    self.past.push(increment);
                }
                // Every replica refuses alike; the next command meets the same map on all of them.
                Err(error) => tracing::error!(%error, "a rule made an increment that does not fit its map"),
            }
        }
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
                Ok(Applied { outcome: Outcome { text: "noted".into(), ..Outcome::default() }, increments: Vec::new() })
            }
            v1::command::Verb::Map(command) => self.change_map(request, command),
            v1::command::Verb::Identity(change) => self.identify(request, change),
        }
    }

    fn change_map(&mut self, request: &Request, command: MapCommand) -> Result<Applied, Status> {
        let command = rules::Command::try_from(command).map_err(|error| error.status())?;
        let asker = Asker { now: Stamp(request.at_ms), who: request.who.clone() };
        let outcome = rules::execute(&self.map, &command, &asker).map_err(|error| error.status())?;
        self.adopt(&outcome.increments);
        let detail = outcome.message(self.map.epoch, None).encode_to_vec().into();
        // What operators ask for is audited, done or refused; of what daemons do, only changes are worth a line.
        if !request.is_by_daemon() {
            self.log(request, AUDIT, "info", outcome.text.clone());
        } else if !outcome.increments.is_empty() {
            self.log(request, CLUSTER, "info", outcome.text.clone());
        }
        for note in &outcome.notes {
            self.log(request, CLUSTER, "info", note.clone());
        }
        Ok(Applied {
            outcome: Outcome { text: outcome.text, detail, ..Outcome::default() },
            increments: outcome.increments,
        })
    }

    /// Changes who belongs to the cluster; what is void because of it is named by the map.
    fn identify(&mut self, request: &Request, sent: v1::IdentityChange) -> Result<Applied, Status> {
        let change = wire::change_from(sent)
            .map_err(|error| Status::new(Code::Invalid, format!("the change of identities makes no sense: {error}")))?;
        let (line, void) = self.identities.apply(&change);
        let asker = Asker { now: Stamp(request.at_ms), who: request.who.clone() };
        let mut increments = Vec::new();
        for held in void {
            let until = Stamp(held.not_after.0.saturating_mul(1000));
            let command = rules::Command::Revoke { serial: held.serial, until, why: line.clone().unwrap_or_default() };
            let outcome = rules::execute(&self.map, &command, &asker).map_err(|error| error.status())?;
            self.adopt(&outcome.increments);
            increments.extend(outcome.increments);
        }
        if change.is_of_authorities() && line.is_some() {
            let increment = self.authorities(asker.now);
            self.adopt(increment.as_slice());
            increments.extend(increment);
        }
        if let Some(line) = &line {
            self.log(request, AUDIT, "info", line.clone());
        }
        Ok(Applied { outcome: Outcome { text: line.unwrap_or_default(), ..Outcome::default() }, increments })
    }

    /// The map, with the authorities that are believed.
    fn authorities(&self, now: Stamp) -> Option<Increment> {
        let mut draft = Draft::of(&self.map, now);
        let signing = self.identities.authority.as_ref().map(|record| record.certificate.clone());
        let believed: BTreeMap<Vec<u8>, Anchor> = (self.identities.trusted().into_iter())
            .map(|certificate| {
                let signs = signing.as_ref() == Some(&certificate);
                (authority_fingerprint(&certificate).to_vec(), Anchor { certificate, signs })
            })
            .collect();
        let gone: Vec<Vec<u8>> =
            draft.authorities.keys().filter(|print| !believed.contains_key(*print)).cloned().collect();
        for print in gone {
            draft.authorities.remove(&print);
        }
        for (print, anchor) in believed {
            let _always_fits = draft.authorities.set(print, Arc::new(anchor));
        }
        draft.finish()
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
            identities: Some(self.identities.encode()),
            past: self.past.encode(),
        };
        message.encode_to_vec().into()
    }

    /// From a snapshot.
    pub fn decode(bytes: Bytes) -> Result<State, StateError> {
        let message = v1::State::decode(bytes)?;
        let map = ClusterMap::decode(&message.map)?;
        Ok(State {
            applied: convert::log_id_from(message.applied)?,
            membership: convert::stored_membership_from(message.membership)?,
            sessions: Sessions::decode(message.sessions),
            events: Events::decode(message.events, message.next_event),
            commands: message.commands,
            past: Past::decode(message.past, map.epoch.0),
            map: Arc::new(map),
            identities: Identities::decode(message.identities)?,
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

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz_tests;
