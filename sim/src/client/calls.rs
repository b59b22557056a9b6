//! What a client asks of server-side classes. Drawn from a stream of its own, so that it can grow without changing what
//! other seeds do.

use bytes::Bytes;
use nacre_pg::class::lock::{Assert, Break, Kind, Lock, Named, Renew, Unlock};
use nacre_pg::class::numops::Change;
use nacre_pg::class::queue::{Entries, Take};
use nacre_pg::class::{Page, encode};
use nacre_pg::format::Codec;
use nacre_pg::op::Op;
use nacre_proto::ids::SessionId;

use crate::rng::Rng;

fn call<T: Codec>(class: &str, method: &str, input: &T) -> Op {
    Op::Call { class: class.to_owned(), method: method.to_owned(), input: encode(input) }
}

const LOCK: Bytes = Bytes::from_static(b"lock");
const COOKIE: Bytes = Bytes::from_static(b"c");

fn tag(client: u64) -> Bytes {
    Bytes::from(format!("holder-{client}"))
}

/// One vector with a call.
pub(super) fn draw(rng: &mut Rng, client: u32, clients: u64, value: &Bytes) -> Vec<Op> {
    let me = u64::from(client);
    let other = rng.below(clients);
    let renew = [Renew::No, Renew::May, Renew::Must][rng.below(3) as usize];
    let kind = if rng.chance(1, 3) { Kind::Shared } else { Kind::Exclusive };
    let lock = Lock { name: LOCK, kind, cookie: COOKIE, tag: tag(me), renew, ..Lock::default() };
    match rng.below(12) {
        0..3 => {
            let key = Bytes::from(format!("key-n{}", rng.below(2)));
            vec![call("numops", "add", &Change { key, by: rng.below(100) as i64 - 20 })]
        }
        3 => vec![call("numops", "add", &Change { key: Bytes::from_static(b"key-1"), by: 1 })],
        4 | 5 => {
            let items =
                (0..rng.range(1, 3)).map(|i| Bytes::from([value, format!("{i}").as_bytes()].concat())).collect();
            vec![call("queue", "put", &Entries { items }), Op::Append { data: value.clone() }]
        }
        6 | 7 => vec![call("queue", "take", &Take { max: rng.range(1, 4) as u32 })],
        8 => vec![call("lock", "lock", &lock)],
        9 => vec![call("lock", "unlock", &Unlock { name: LOCK, cookie: COOKIE })],
        10 if rng.chance(1, 2) => {
            let hold = Break { name: LOCK, session: SessionId(other + 1), cookie: COOKIE };
            vec![call("lock", "break", &hold), call("lock", "lock", &lock)]
        }
        10 => vec![call("lock", "unfence", &Named { name: LOCK, tag: tag(other) })],
        _ => {
            let mine = Assert { name: LOCK, cookie: COOKIE, tag: tag(me), fence: 0 };
            vec![call("lock", "assert", &mine), Op::Append { data: value.clone() }]
        }
    }
}

/// What is looked at when all is over.
pub(crate) fn last_look() -> Vec<Op> {
    vec![
        call("queue", "list", &Page { after: Bytes::new(), max: 10_000 }),
        call("lock", "info", &Named { name: LOCK, tag: Bytes::new() }),
    ]
}
