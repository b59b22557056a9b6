use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::path::PathBuf;

use nacre_proto::ids::{OsdId, PoolId, SessionId, SnapId, Version};

use super::*;
use crate::format::APART;
use crate::io::{Duration, SlotKind, Time};
use crate::log::{Change, Delta, Dup, Dups, LogEntry, LogPart, Missing, MissingItem};
use crate::msg::{CopyAsk, CopyCursor, CopyIs, Cursor, Rep, Shared};
use crate::op::{CloneLine, OpError, OpResult};
use crate::state::{History, Info, Stats};
use crate::view::PastIntervals;

fn v(epoch: u64, counter: u64) -> Version {
    Version { epoch: Epoch(epoch), counter }
}

fn oid() -> ObjectId {
    ObjectId { pool: PoolId(3), hash: 0xdead_beef, namespace: "vms".into(), name: "disk.0".into(), snap: SnapId::HEAD }
}

fn entry() -> LogEntry {
    LogEntry {
        version: v(7, 9),
        oid: oid(),
        prior: Some(v(6, 2)),
        change: Change::Modify,
        reqid: Some(ReqId { session: SessionId(5), tid: 8 }),
        acked_below: 3,
        outcome: Some(Ok(vec![OpResult::Done])),
        replied: Some(v(7, 8)),
        delta: Delta { objects: 1, clones: -2, bytes: 3 },
    }
}

fn chunk() -> Chunk {
    let at = CopyCursor { offset: 4096, omap_after: Some("k".into()) };
    Chunk {
        at: CopyCursor::default(),
        next: Some(at),
        xattrs: vec![("_".into(), "info".into())],
        header: "head".into(),
        size: 9000,
        data: vec![7; 300].into(),
        omap: vec![("a".into(), "b".into())],
        shared: Some(Shared { with: SnapId(4), ranges: vec![(0, 512), (1024, 3072)] }),
    }
}

fn bodies() -> Vec<Body> {
    let history = History { created: Epoch(1), started: Epoch(2), clean: Epoch(3) };
    let (past, info) = (PastIntervals::default(), Box::new(Info::new(PgId { pool: PoolId(3), seed: 4 })));
    let part = LogPart { tail: v(1, 1), head: v(7, 9), entries: vec![entry().into()] };
    let reqid = ReqId { session: SessionId(5), tid: 7 };
    let dup = Dup { version: v(6, 2), replied: v(6, 1), outcome: Err(OpError::Guard { at: 1 }) };
    let dups = Dups { replies: BTreeMap::from([(reqid, dup)]), acked: BTreeMap::from([(SessionId(5), 3)]) };
    let mut missing = Missing::default();
    missing.insert(oid(), MissingItem { need: v(7, 9), have: None });
    let at = CopyCursor { offset: 1, omap_after: None };
    let (need, to) = (v(7, 9), Cursor::At(oid()));
    let line =
        ScrubLine { oid: oid(), info: Some("i".into()), size: 5, xattrs: 1, data: Some(2), omap: None, damaged: true };
    let write = TxnOp::Write {
        oid: oid(),
        offset: 8192,
        data: vec![1; 400].into(),
        hint: WriteHint { compressible: Some(Compression::Zstd), cold: true },
    };
    vec![
        Body::Query { history, past: past.clone() },
        Body::Info {
            info: info.clone(),
            past: past.clone(),
            lease: Duration::ms(3),
            holder: Some(OsdId(4)),
            asked: true,
        },
        Body::QueryLog { since: v(4, 4) },
        Body::Log { part: part.clone(), dups: dups.clone(), stats: Stats { objects: 1, clones: 2, bytes: 3 } },
        Body::Activate { info: info.clone(), past, part, dups, reset: true },
        Body::Activated { info: info.clone(), missing: missing.clone() },
        Body::Rep(
            Rep {
                prev: v(7, 8),
                entries: vec![entry().into()],
                ops: vec![write, TxnOp::Touch { oid: oid() }],
                trim_to: v(1, 1),
            }
            .into(),
        ),
        Body::RepAck { durable: need },
        Body::Lease { sent: Time(5), last: Duration::ms(8) },
        Body::LeaseAck { sent: Time(5) },
        Body::Pull { oid: oid(), need, at: at.clone(), kin: Some(v(7, 9)) },
        Body::Pulled { oid: oid(), need, chunk: Some(chunk()) },
        Body::Push { oid: oid(), version: need, chunk: chunk() },
        Body::Pushed { oid: oid(), version: need, at },
        Body::Scan { from: Cursor::Min, to: to.clone() },
        Body::Scanned { from: to.clone(), list: vec![(oid(), need)] },
        Body::Progress { to: Cursor::Max, remove: vec![oid()] },
        Body::ProgressAck { to: to.clone() },
        Body::Reserve { kind: SlotKind::Remote, priority: 9 },
        Body::Reserved { kind: SlotKind::Local },
        Body::Revoked { kind: SlotKind::Scrub },
        Body::Release { kind: SlotKind::Remote },
        Body::Clean { history, trim_to: v(2, 2) },
        Body::Remove,
        Body::ScrubRange { round: 4, from: Cursor::Min, to, deep: true },
        Body::ScrubIs { round: 4, lines: Some(vec![line]) },
        Body::Repair { items: vec![(oid(), need)] },
        Body::Repairing { missing },
        Body::Counts { stats: Stats { objects: 4, clones: 5, bytes: 6 }, at: v(3, 3) },
        Body::CopyAsk(Box::new(CopyAsk {
            pg: PgId { pool: PoolId(3), seed: 4 },
            interval: Epoch(7),
            reqid,
            from: oid(),
            version: Some(need),
            at: CopyCursor { offset: 1, omap_after: None },
        })),
        Body::CopyIs(Box::new(CopyIs {
            interval: Epoch(7),
            reqid,
            at: CopyCursor::default(),
            version: need,
            piece: Some(chunk()),
            refused: Some(OpError::NotFound { at: 1 }),
        })),
    ]
}

fn ops() -> Vec<Op> {
    let (name, value, keys): (Bytes, Bytes, Vec<Bytes>) = ("n".into(), "v".into(), vec!["a".into(), "b".into()]);
    let data = Bytes::from(vec![9; 300]);
    vec![
        Op::Stat,
        Op::Read { offset: 1, len: 2 },
        Op::SparseRead { offset: 1, len: 2 },
        Op::Checksum { offset: 1, len: 2, chunk: 3 },
        Op::GetXattr { name: name.clone() },
        Op::ListXattrs,
        Op::OmapRange { after: Some(name.clone()), prefix: value.clone(), max: 5 },
        Op::OmapKeys { keys: keys.clone() },
        Op::OmapHeader,
        Op::ListSnaps,
        Op::ListWatchers,
        Op::AssertVersion { version: v(1, 2) },
        Op::AssertExists,
        Op::AssertAbsent,
        Op::CompareXattr { name: name.clone(), how: Compare::Ge, value: value.clone() },
        Op::CompareOmap { key: name.clone(), how: Compare::Ne, value: value.clone() },
        Op::CompareExtent { offset: 3, data: data.clone() },
        Op::Create { exclusive: true },
        Op::Write { offset: 4096, data: data.clone() },
        Op::WriteFull { data: data.clone() },
        Op::Append { data: data.clone() },
        Op::Zero { offset: 1, len: 2 },
        Op::Truncate { size: 3 },
        Op::Remove,
        Op::WriteSame { offset: 1, len: 600, data },
        Op::SetXattr { name: name.clone(), value: value.clone() },
        Op::RemoveXattr { name: name.clone() },
        Op::OmapSet { entries: vec![(name.clone(), value.clone())] },
        Op::OmapRemove { keys },
        Op::OmapRemoveRange { from: name.clone(), to: None },
        Op::OmapClear,
        Op::OmapSetHeader { header: value.clone() },
        Op::Rollback { snap: SnapId(4) },
        Op::Call { class: "lock".into(), method: "take".into(), input: value.clone() },
        Op::Watch { cookie: 1, timeout_ms: 2 },
        Op::Unwatch { cookie: 1 },
        Op::Notify { payload: value.clone(), timeout_ms: 3 },
        Op::NotifyAck { notify: 1, cookie: 2, payload: value },
        Op::Hint { size: 5, cold: true },
        Op::GetPiece { at: CopyCursor { offset: 5, omap_after: None }, bytes: 6, keys: 7 },
        Op::CopyFrom { from: oid(), version: Some(v(7, 9)) },
    ]
}

fn replies() -> Vec<Reply> {
    let clone = CloneLine { id: SnapId(3), snaps: vec![SnapId(2), SnapId(3)], size: 9 };
    let results = vec![
        OpResult::Done,
        OpResult::Data(vec![4; 300].into()),
        OpResult::Stat { size: 1, version: v(2, 3) },
        OpResult::Extents(vec![(5, "x".into())]),
        OpResult::Sums(vec![1, 2]),
        OpResult::Pairs { pairs: vec![("a".into(), "b".into())], more: true },
        OpResult::Snaps { clones: vec![clone], head: true },
        OpResult::Watchers(vec![(SessionId(1), 2)]),
        OpResult::Notified { notify: 6, acks: vec![((SessionId(1), 1), "y".into())], missed: vec![(SessionId(1), 2)] },
        OpResult::Piece(Box::new(chunk())),
    ];
    vec![
        Reply::Done { outcome: Ok(results), version: v(5, 6) },
        Reply::Done { outcome: Err(OpError::Class { at: 2, code: 16 }), version: v(5, 6) },
        Reply::Again { epoch: Epoch(9) },
    ]
}

fn ask() -> Ask {
    let snapc = SnapContext { seq: SnapId(4), snaps: vec![SnapId(4), SnapId(2)] };
    let reqid = ReqId { session: SessionId(1), tid: 2 };
    Ask { pg: PgId { pool: PoolId(3), seed: 4 }, reqid, acked_below: 1, epoch: Epoch(9), oid: oid(), snapc, ops: ops() }
}

fn said() -> Vec<Said> {
    let pg = PgId { pool: PoolId(3), seed: 4 };
    let say = |body| Said { pg, msg: PeerMsg { epoch: Epoch(9), interval: Epoch(8), body } };
    bodies().into_iter().map(say).collect()
}

/// Comes back the same; no prefix is taken for the whole; no flipped bit does worse than another value or an error.
fn holds<T: Codec + PartialEq + Debug>(value: &T) -> Bytes {
    let Parcel { meta, data } = encode(value);
    assert!(meta.is_empty(), "nothing in {value:?} is so large that it stands apart");
    assert_eq!(&decode::<T>(&meta, &data).unwrap(), value);
    for len in 0..data.len() {
        let short = decode::<T>(&meta, &data.slice(..len));
        assert!(short.is_err(), "{len} of {} bytes were taken for {value:?}", data.len());
    }
    for at in 0..data.len() {
        let mut bad = data.to_vec();
        bad[at] ^= 0x80;
        let _either = decode::<T>(&meta, &bad.into());
    }
    data
}

/// The same for one of which something stands apart: meta and data.
fn holds_apart<T: Codec + PartialEq + Debug>(value: &T) -> Parcel {
    let Parcel { meta, data } = encode(value);
    assert!(!meta.is_empty());
    assert_eq!(&decode::<T>(&meta, &data).unwrap(), value);
    for len in 1..meta.len() {
        assert!(decode::<T>(&meta.slice(..len), &data).is_err(), "{len} of {} bytes of meta were taken", meta.len());
    }
    for len in [0, 1, data.len() / 2, data.len() - 1] {
        assert!(decode::<T>(&meta, &data.slice(..len)).is_err(), "{len} of {} bytes of data were taken", data.len());
    }
    let longer: Bytes = [&data[..], b"more"].concat().into();
    assert_eq!(decode::<T>(&meta, &longer), Err(FormatError::Long(4)));
    for at in 0..meta.len() {
        let mut bad = meta.to_vec();
        bad[at] ^= 0x80;
        let _either = decode::<T>(&bad.into(), &data);
    }
    Parcel { meta, data }
}

#[test]
fn all_that_travels_comes_back_and_its_bytes_stay_the_same() {
    let mut now = String::from(
        "# Version 2 of every message, in hex: kind, name, bytes. Kept so that peers of this version understand each other.\n",
    );
    let mut line = |kind: &str, name: &str, bytes: Bytes| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(now, "{kind} {name} {hex}").unwrap();
    };
    let mut names = BTreeSet::new();
    for said in said() {
        assert!(names.insert(said.msg.body.name()));
        line("peer", said.msg.body.name(), holds(&said));
    }
    line("ask", "all_ops", holds(&ask()));
    for (index, reply) in replies().iter().enumerate() {
        line("reply", &index.to_string(), holds(reply));
    }
    let oid = ask().oid;
    let told = Told { oid: oid.clone(), cookie: 5, notify: 6, payload: "news".into() };
    line("told", "0", holds(&told));
    line("look", "all", holds(&Look { only: None }));
    line("look", "one", holds(&Look { only: Some(ask().pg) }));
    let damage = vec![(oid.clone(), vec![(OsdId(3), "Absent".to_owned())])];
    let pg_line = PgLine {
        pg: ask().pg,
        state: "active".into(),
        clean: false,
        scrubbing: true,
        why: "recovers 1 object".into(),
        epoch: Epoch(9),
        interval: Epoch(8),
        last: Version { epoch: Epoch(9), counter: 70 },
        tail: Version { epoch: Epoch(2), counter: 1 },
        objects: 5,
        clones: 1,
        bytes: 4096,
        missing: 1,
        unfound: vec![oid],
        inconsistent: damage,
    };
    line("pg_line", "0", holds(&pg_line));
    let gone = Order::SessionGone(SessionId(4));
    for order in [Order::Scrub { deep: true }, Order::Unfound { revert: false }, gone, Order::ScrubDue { deep: false }]
    {
        line("tell", "0", holds(&Tell { pg: ask().pg, order }));
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pg/wire-2.txt");
    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == now, "bytes of version 2 changed: old peers would not understand them. Raise VERSION instead");
}

fn asking(ops: Vec<Op>) -> Ask {
    Ask { ops, ..ask() }
}

#[test]
fn large_payloads_stand_apart_and_are_copied_nowhere() {
    let payload = Bytes::from((0..5000u32).map(|at| at as u8).collect::<Vec<_>>());
    let write = |data: &Bytes| Op::Write { offset: 4096, data: data.clone() };
    let value = asking(vec![Op::AssertExists, write(&payload), Op::GetXattr { name: "tag".into() }]);
    let Parcel { meta, data } = holds_apart(&value);
    assert_eq!((data.as_ptr(), data.len()), (payload.as_ptr(), payload.len()), "written without a copy");
    assert!(meta.len() < 256);
    let back: Ask = decode(&meta, &data).unwrap();
    let Op::Write { data: read, .. } = &back.ops[1] else { panic!("another operation came back") };
    assert_eq!(read.as_ptr(), payload.as_ptr(), "read without a copy");

    // One byte less stays in the run; of several each is found again, in order.
    let limit = Bytes::from(vec![7; APART]);
    assert!(encode(&asking(vec![write(&limit.slice(1..))])).meta.is_empty());
    let several = asking(vec![write(&payload), write(&limit.slice(1..)), write(&limit)]);
    assert_eq!(holds_apart(&several).data.len(), payload.len() + limit.len());
}

#[test]
fn a_message_that_is_too_long_for_metadata_goes_whole() {
    let entries = (0..40_000u32).map(|n| (Bytes::from(format!("key {n:08}")), Bytes::from(vec![1; 30]))).collect();
    let value = asking(vec![Op::OmapSet { entries }, Op::Append { data: vec![9; 1 << 20].into() }]);
    let Parcel { meta, data } = encode(&value);
    assert_eq!((meta.len(), data.len() > 2 << 20), (0, true));
    assert_eq!(decode::<Ask>(&meta, &data).unwrap(), value);
}

#[test]
fn another_version_is_refused_by_its_number() {
    let whole = |bytes: Vec<u8>| decode::<Ask>(&Bytes::new(), &bytes.into());
    let mut bytes = encode(&ask()).data.to_vec();
    bytes[0] = VERSION + 1;
    assert_eq!(whole(bytes), Err(FormatError::TooNew { known: VERSION, found: VERSION + 1 }));
    let Parcel { meta, data } = encode(&asking(vec![Op::Append { data: vec![1; APART].into() }]));
    for found in [VERSION_APART - 1, VERSION_APART + 1] {
        let other = [&[found], &meta[1..]].concat();
        let known = VERSION_APART;
        let why =
            if found < known { FormatError::TooOld { known, found } } else { FormatError::TooNew { known, found } };
        assert_eq!(decode::<Ask>(&other.into(), &data), Err(why));
    }
    // What peers of version 1 say.
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pg/wire-1.txt");
    let kept = std::fs::read_to_string(path).unwrap();
    let pushed = kept.lines().find_map(|l| l.strip_prefix("peer push ")).unwrap();
    let bytes: Vec<u8> =
        (0..pushed.len()).step_by(2).map(|i| u8::from_str_radix(&pushed[i..i + 2], 16).unwrap()).collect();
    let found = decode::<Said>(&Bytes::new(), &bytes.into());
    assert_eq!(found, Err(FormatError::TooOld { known: VERSION, found: 1 }));
}

#[test]
fn payloads_of_a_whole_message_share_its_buffer() {
    let bytes = encode(&ask()).data;
    let back: Ask = decode(&Bytes::new(), &bytes).unwrap();
    let within = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    let shared = back.ops.iter().filter_map(|op| match op {
        Op::Write { data, .. } | Op::WriteFull { data } | Op::Append { data } => Some(data.as_ptr() as usize),
        _ => None,
    });
    assert_eq!(shared.map(|at| within.contains(&at)).collect::<Vec<_>>(), [true; 3]);
}
