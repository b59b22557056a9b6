//! What clients saw: invocations and answers, by object.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_pg::log::Outcome;
use nacre_pg::op::{Op, SnapContext};
use nacre_proto::ids::SnapId;

/// One operation of a client, from asking to answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who.
    pub client: u64,
    /// Its request's number.
    pub tid: u64,
    /// What.
    pub ops: Vec<Op>,
    /// Of which state.
    pub snap: SnapId,
    /// Under which snapshots.
    pub snapc: SnapContext,
    /// When asked.
    pub asked: u64,
    /// When answered, with what; none: never.
    pub answer: Option<(u64, Outcome)>,
}

/// All calls.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By object name, in the order of asking.
    pub objects: BTreeMap<Bytes, Vec<Call>>,
    /// Snapshots that were removed, and when: what reads them answers from then on is anything.
    pub removed: BTreeMap<SnapId, u64>,
}

impl History {
    /// A call was made; its place is what `answer` needs.
    pub fn ask(&mut self, name: &Bytes, call: Call) -> usize {
        let list = self.objects.entry(name.clone()).or_default();
        list.push(call);
        list.len() - 1
    }

    /// It was answered.
    pub fn answer(&mut self, name: &Bytes, place: usize, at: u64, outcome: Outcome) {
        if let Some(call) = self.objects.get_mut(name).and_then(|l| l.get_mut(place)) {
            call.answer = Some((at, outcome));
        }
    }

    /// How many calls.
    pub fn len(&self) -> usize {
        self.objects.values().map(Vec::len).sum()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
