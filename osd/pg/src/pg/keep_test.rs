//! Bytes of the records a pg keeps: readable for ever, and never the cause of a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SessionId, SnapId, Version};

use super::{ACKED, DUP, INFO, MISSING, PAST, Stored, TAIL, TEMP};
use crate::PlacementGroup;
use crate::format::{Codec, FormatError, Kind, open, seal};
use crate::io::Time;
use crate::log::{Change, Delta, Dup, LogEntry, MissingItem, ReqId, meta_key};
use crate::msg::Cursor;
use crate::object::{CloneInfo, ObjectInfo, SnapSet};
use crate::op::{OpError, OpResult};
use crate::state::{Config, History, Info, Stats};
use crate::view::{OsdSight, PastIntervals, PoolRules, View};

fn v(epoch: u64, counter: u64) -> Version {
    Version { epoch: Epoch(epoch), counter }
}

fn oid() -> ObjectId {
    ObjectId { pool: PoolId(3), hash: 0x1234_5678, namespace: "space".into(), name: "name".into(), snap: SnapId::HEAD }
}

fn entry(counter: u64) -> LogEntry {
    LogEntry {
        version: v(7, counter),
        oid: oid(),
        prior: Some(v(6, 2)),
        change: Change::Modify,
        reqid: Some(ReqId { session: SessionId(5), tid: counter }),
        acked_below: 3,
        outcome: Some(Ok(vec![OpResult::Done, OpResult::Data("out".into())])),
        replied: Some(v(6, 2)),
        delta: Delta { objects: 1, clones: -2, bytes: 3 },
    }
}

fn info() -> Info {
    Info {
        epoch: Epoch(9),
        interval: Epoch(8),
        last_update: v(7, 10),
        log_tail: v(7, 8),
        backfilled: Cursor::At(oid()),
        started: Epoch(8),
        history: History { created: Epoch(1), started: Epoch(8), clean: Epoch(6) },
        stats: Stats { objects: 4, clones: 5, bytes: 6 },
        stats_at: v(7, 9),
        purged: BTreeSet::from([SnapId(2)]),
        pg_num: 8,
        recount: true,
        ..Info::new(PgId { pool: PoolId(3), seed: 4 })
    }
}

fn past() -> PastIntervals {
    let sight = OsdSight { up: true, up_thru: Epoch(5), ..OsdSight::default() };
    let view = View {
        epoch: Epoch(6),
        up: vec![OsdId(1), OsdId(2)],
        up_primary: Some(OsdId(1)),
        acting: vec![OsdId(1), OsdId(2)],
        primary: Some(OsdId(1)),
        pool: PoolRules { size: 2, min_size: 1, pg_num: 8, ..PoolRules::default() },
        osds: Arc::new(BTreeMap::from([(OsdId(1), sight), (OsdId(2), sight)])),
    };
    let mut past = PastIntervals::default();
    past.close(Epoch(5), &view);
    assert_eq!(past.len(), 1);
    past
}

fn object() -> ObjectInfo {
    let clone = CloneInfo { id: SnapId(4), snaps: vec![SnapId(3), SnapId(4)], size: 9, overlap: vec![(0, 4), (6, 1)] };
    ObjectInfo {
        version: v(7, 9),
        changed: v(7, 8),
        size: 10,
        whiteout: true,
        digest: Some(11),
        snaps: SnapSet { seq: SnapId(5), clones: vec![clone] },
        watchers: BTreeMap::from([((SessionId(5), 6), 30_000)]),
        clone_of: vec![SnapId(1)],
    }
}

/// Comes back the same, and no flipped bit or cut is taken for it; with its checksum made right, it is a value or an
/// error.
fn holds<T: Codec + PartialEq + Debug>(kind: Kind, value: &T) -> Bytes {
    let bytes = seal(kind, value);
    assert_eq!(&open::<T>(kind, &bytes).unwrap(), value);
    for len in 0..bytes.len() {
        assert!(open::<T>(kind, &bytes[..len]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open::<T>(kind, &bad).is_err(), "bit {bit} of {value:?}");
        let sum = crc32fast::hash(&bad[7..]).to_le_bytes();
        bad[3..7].copy_from_slice(&sum);
        let _either = open::<T>(kind, &bad);
    }
    bytes
}

#[test]
fn records_of_version_1_stay_readable() {
    let dup = Dup { version: v(6, 2), replied: v(6, 1), outcome: Err(OpError::Guard { at: 1 }) };
    let lines = [
        ("info", holds(Kind::Info, &info())),
        ("intervals", holds(Kind::Intervals, &past())),
        ("log_entry", holds(Kind::LogEntry, &entry(9))),
        ("missing", holds(Kind::Missing, &MissingItem { need: v(7, 9), have: Some(v(6, 2)) })),
        ("dup", holds(Kind::Dup, &dup)),
        ("acked", holds(Kind::Dup, &7_u64)),
        ("object", holds(Kind::Object, &object())),
        ("temp", holds(Kind::Temp, &oid())),
        ("tail", holds(Kind::Tail, &v(7, 8))),
    ];
    let mut now = String::from("# Version 1 of every record a pg keeps, in hex. Kept so that it stays readable.\n");
    for (name, bytes) in lines {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(now, "{name} {hex}").unwrap();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pg/stored-1.txt");
    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == now, "records of version 1 changed: what is on disks would not be read. Raise VERSION instead");
}

fn stored() -> Stored {
    let meta = vec![
        (Bytes::from_static(INFO), seal(Kind::Info, &info())),
        (Bytes::from_static(PAST), seal(Kind::Intervals, &past())),
        (Bytes::from_static(TAIL), seal(Kind::Tail, &v(7, 8))),
        (meta_key(MISSING, &oid()), seal(Kind::Missing, &MissingItem { need: v(7, 9), have: None })),
        (meta_key(ACKED, &SessionId(5)), seal(Kind::Dup, &2_u64)),
        (meta_key(TEMP, &oid()), seal(Kind::Temp, &oid())),
        (
            meta_key(DUP, &ReqId { session: SessionId(5), tid: 2 }),
            seal(Kind::Dup, &Dup { version: v(6, 2), replied: v(6, 2), outcome: Ok(Vec::new()) }),
        ),
    ];
    Stored { meta, log: vec![seal(Kind::LogEntry, &entry(9)), seal(Kind::LogEntry, &entry(10))] }
}

fn load(stored: &Stored) -> Result<PlacementGroup, FormatError> {
    let view = View {
        epoch: Epoch(9),
        up: Vec::new(),
        up_primary: None,
        acting: Vec::new(),
        primary: None,
        pool: PoolRules { size: 2, min_size: 1, pg_num: 8, ..PoolRules::default() },
        osds: Arc::default(),
    };
    PlacementGroup::load(stored, OsdId(1), Arc::new(Config::default()), Arc::new(view), Epoch(0), Time(1))
}

#[test]
fn a_pg_comes_back_as_it_was_kept() {
    let pg = load(&stored()).unwrap();
    assert_eq!((pg.info().last_update, pg.info().log_tail), (v(7, 10), v(7, 8)));
    assert_eq!(pg.info().stats, Stats { objects: 5, clones: 3, bytes: 9 }, "the entry after `stats_at` is counted");
    assert_eq!(pg.log().len(), 2);
    assert!(pg.log().is_answered(ReqId { session: SessionId(5), tid: 2 }));
    assert_eq!((pg.missing().len(), pg.past().len()), (1, 1));
}

#[test]
fn damaged_records_are_errors() {
    for at in 0..stored().meta.len() {
        let mut bad = stored();
        bad.meta[at].1 = Bytes::from_static(b"no record");
        assert!(load(&bad).is_err());
        let mut bad = stored();
        bad.meta[at].0 = Bytes::from_static(b"");
        assert!(load(&bad).is_err());
    }
    let mut none = stored();
    none.meta.remove(0);
    assert!(load(&none).is_err());
    // Each entry is well in itself.
    let mut turned = stored();
    turned.log.reverse();
    assert_eq!(load(&turned).err(), Some(FormatError::Order));
}
