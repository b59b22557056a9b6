//! Any bytes as the body of a record that a pg keeps, with the right checksum: a value or an error, and a pg that loads
//! them refuses or takes them without a panic.

#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_pg::format::{Kind, open};
use nacre_pg::io::Time;
use nacre_pg::log::{Dup, LogEntry, MissingItem};
use nacre_pg::object::ObjectInfo;
use nacre_pg::state::{Config, Info};
use nacre_pg::view::{PastIntervals, PoolRules, View};
use nacre_pg::{PlacementGroup, Stored};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, Version};

fn sealed(kind: Kind, body: &[u8]) -> Bytes {
    let mut out = (kind as u16).to_le_bytes().to_vec();
    out.push(1);
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(body);
    Bytes::from(out)
}

fuzz_target!(|input: &[u8]| {
    let _ = open::<Info>(Kind::Info, &sealed(Kind::Info, input));
    let _ = open::<PastIntervals>(Kind::Intervals, &sealed(Kind::Intervals, input));
    let _ = open::<LogEntry>(Kind::LogEntry, &sealed(Kind::LogEntry, input));
    let _ = open::<MissingItem>(Kind::Missing, &sealed(Kind::Missing, input));
    let _ = open::<Dup>(Kind::Dup, &sealed(Kind::Dup, input));
    let _ = open::<ObjectInfo>(Kind::Object, &sealed(Kind::Object, input));
    let _ = open::<ObjectId>(Kind::Temp, &sealed(Kind::Temp, input));
    let _ = open::<Version>(Kind::Tail, &sealed(Kind::Tail, input));
    // The first byte says how long the info is, the rest is cut into entries of the log.
    let Some((first, rest)) = input.split_first() else { return };
    let (info, log) = rest.split_at(rest.len().min(usize::from(*first)));
    let stored = Stored {
        meta: vec![(Bytes::from_static(b"i"), sealed(Kind::Info, info))],
        log: log.chunks(160).map(|e| sealed(Kind::LogEntry, e)).collect(),
    };
    let view = View {
        epoch: Epoch(9),
        up: Vec::new(),
        up_primary: None,
        acting: Vec::new(),
        primary: None,
        pool: PoolRules { size: 2, min_size: 1, pg_num: 8, ..PoolRules::default() },
        osds: Arc::default(),
    };
    let _ = PlacementGroup::load(&stored, OsdId(1), Arc::new(Config::default()), Arc::new(view), Epoch(0), Time(1));
});
