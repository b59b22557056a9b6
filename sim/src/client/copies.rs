//! Objects that are copied from. What they hold follows from their name alone, however often they are written, so that
//! each object's history can be judged by itself: a copy is all of that, or the source was not there (or was written
//! again and again while it was read).

use bytes::Bytes;
use nacre_pg::op::Op;
use nacre_proto::ids::SnapId;

use super::object;
use crate::rng::Rng;

/// More bytes than one piece.
fn content(name: &[u8]) -> Bytes {
    Bytes::from([name, b"! "].concat().repeat(12))
}

/// What an object of this name holds if it is there and is one to be copied from.
pub(crate) fn of_source(name: &[u8]) -> Vec<u8> {
    content(name).to_vec()
}

/// A write of a source, or a copy of one onto an object: on which, and what.
pub(super) fn draw(rng: &mut Rng, onto: &Bytes) -> (Bytes, Vec<Op>) {
    let source = Bytes::from(format!("model-{}", rng.below(3)));
    if rng.chance(1, 3) {
        let data = content(&source);
        return (source, vec![Op::WriteFull { data }]);
    }
    let from = object(&source, SnapId::HEAD);
    (onto.clone(), vec![Op::CopyFrom { from, version: None }])
}
