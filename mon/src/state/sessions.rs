//! What each client has asked for lately, so that a command sent again, after a lost answer or a change of leader, is
//! answered and not done again.
//!
//! Part of the replicated state: forgetting depends on the log alone (never on a clock or on memory), so every replica
//! forgets the same.
//!
//! Invariants: a command of a session is done at most once while the session is remembered; a sequence number older
//! than what is remembered of a session is refused, never done.

use std::collections::BTreeMap;

use nacre_mon_api::v1;
use nacre_proto::status::Code;

use crate::raft::{Outcome, Request};

/// Sessions remembered. The ones idle longest are forgotten first.
const SESSIONS: usize = 1024;
/// Answers remembered of each.
const ANSWERS: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    used: u64,
    /// Nothing at or below this is done any more.
    floor: u64,
    answers: BTreeMap<u64, Outcome>,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    sessions: BTreeMap<u64, Session>,
    by_use: BTreeMap<u64, u64>,
}

impl Sessions {
    /// The answer to a command that was done before, or the refusal of one too old to tell.
    pub fn answer(&self, request: &Request) -> Option<Outcome> {
        let session = self.sessions.get(&request.session)?;
        if let Some(outcome) = session.answers.get(&request.sequence) {
            return Some(outcome.clone());
        }
        (request.sequence <= session.floor).then(|| Outcome {
            code: Code::Aborted.number(),
            text: format!(
                "command {} of this session is older than the {ANSWERS} remembered: it may have been done, look before sending it anew",
                request.sequence
            ),
            ..Outcome::default()
        })
    }

    /// Remembers the outcome of a command applied at log index `index`.
    pub fn remember(&mut self, request: &Request, index: u64, outcome: &Outcome) {
        let session = self.sessions.entry(request.session).or_default();
        self.by_use.remove(&session.used);
        session.used = index;
        self.by_use.insert(index, request.session);
        session.answers.insert(request.sequence, outcome.clone());
        while session.answers.len() > ANSWERS {
            if let Some((sequence, _)) = session.answers.pop_first() {
                session.floor = session.floor.max(sequence);
            }
        }
        while self.sessions.len() > SESSIONS {
            let Some((_, idle)) = self.by_use.pop_first() else { break };
            self.sessions.remove(&idle);
        }
    }

    /// For a snapshot.
    pub fn encode(&self) -> Vec<v1::Session> {
        let answers = |session: &Session| {
            session
                .answers
                .iter()
                .map(|(sequence, outcome)| v1::Answer {
                    sequence: *sequence,
                    code: outcome.code.into(),
                    text: outcome.text.clone(),
                    epoch: outcome.epoch,
                    detail: outcome.detail.clone(),
                })
                .collect()
        };
        self.sessions
            .iter()
            .map(|(id, session)| v1::Session {
                id: *id,
                used: session.used,
                floor: session.floor,
                answers: answers(session),
            })
            .collect()
    }

    /// From a snapshot.
    pub fn decode(messages: Vec<v1::Session>) -> Sessions {
        let mut sessions = Sessions::default();
        for message in messages {
            let answers = message.answers.into_iter().map(|answer| {
                let outcome = Outcome {
                    code: u16::try_from(answer.code).unwrap_or(Code::Internal.number()),
                    text: answer.text,
                    epoch: answer.epoch,
                    detail: answer.detail,
                };
                (answer.sequence, outcome)
            });
            let session = Session { used: message.used, floor: message.floor, answers: answers.collect() };
            sessions.by_use.insert(session.used, message.id);
            sessions.sessions.insert(message.id, session);
        }
        sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: u64, sequence: u64) -> Request {
        Request { session, sequence, ..Request::default() }
    }

    #[test]
    fn a_repeated_command_gets_its_first_answer_and_a_forgotten_one_is_refused() {
        let mut sessions = Sessions::default();
        for sequence in 1..=40 {
            assert_eq!(sessions.answer(&request(7, sequence)), None);
            sessions.remember(&request(7, sequence), sequence, &Outcome { epoch: sequence, ..Outcome::default() });
        }
        assert_eq!(sessions.answer(&request(7, 40)).unwrap().epoch, 40);
        assert_eq!(sessions.answer(&request(7, 9)).unwrap().epoch, 9);
        assert_eq!(sessions.answer(&request(7, 8)).unwrap().code, Code::Aborted.number());
        assert_eq!(sessions.answer(&request(8, 8)), None);
        assert_eq!(Sessions::decode(sessions.encode()), sessions);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_idle() {
        let mut sessions = Sessions::default();
        for index in 1..=2000 {
            sessions.remember(&request(index, 1), index, &Outcome::default());
            sessions.remember(&request(1, index + 1), 10_000 + index, &Outcome::default());
        }
        assert_eq!(sessions.sessions.len(), SESSIONS);
        assert_eq!(sessions.by_use.len(), SESSIONS);
        assert!(sessions.answer(&request(1, 2001)).is_some());
        assert!(sessions.answer(&request(900, 1)).is_none());
    }
}
