//! The bytes of store format 1 are kept in `fixtures/mon/store-1.txt` and can be read for ever: a line for each record,
//! `FAMILY KEY VALUE`, keys and values in hex; then one slot of the watermark and a backup. `NACRE_REWRITE=1` writes
//! the file anew, which is right only while no release has written this format.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use rocksdb::IteratorMode;

use super::*;
use crate::backup;
use crate::raft::{Ballot, Entry, LeaderId, LogId, Product, Request, SnapshotMeta};
use crate::state::State;

fn id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 3, node_id: 65_537 }, index }
}

fn entry(index: u64) -> Entry {
    let note = v1::Note { level: "info".into(), text: format!("line {index}"), channel: String::new() };
    let command = v1::Command { verb: Some(v1::command::Verb::Note(note)) };
    let request = Request {
        session: 9,
        sequence: index,
        at_ms: 1_700_000_000_000 + index,
        who: "client.admin".into(),
        command: command.encode_to_vec().into(),
    };
    Entry { log_id: id(index), payload: EntryPayload::Normal(request) }
}

fn ballot() -> Ballot {
    Ballot { leader_id: LeaderId { term: 3, node_id: 65_537 }, committed: true }
}

fn whose() -> Identity {
    Identity { fsid: "5f1d".into(), mon: 1, node: 65_537 }
}

fn state() -> State {
    let mut state = State::default();
    for index in 1..=3 {
        state.apply(&entry(index));
    }
    state
}

/// A store with a record of each kind, and everything in it.
fn written(dir: &Path) -> String {
    Product::run(async {
        let mut store = Store::open(dir, &whose(), true, committer_inline()).unwrap();
        RaftLogStorage::<Product>::save_vote(&mut store, &ballot()).await.unwrap();
        RaftLogStorageExt::<Product>::blocking_append(&mut store, (1..=5).map(entry)).await.unwrap();
        RaftLogStorage::<Product>::save_committed(&mut store, Some(id(4))).await.unwrap();
        let state = state();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        store.put_snapshot(&meta, &state.encode()).unwrap();
        RaftLogStorage::<Product>::purge(&mut store, id(2)).await.unwrap();
        store.sync().unwrap();
        let mut text = String::new();
        for name in [META, LOG] {
            let family = store.inner.db.cf_handle(name).unwrap();
            for record in store.inner.db.iterator_cf(family, IteratorMode::Start) {
                let (key, value) = record.unwrap();
                writeln!(text, "{name} {} {}", hex(&key), hex(&value)).unwrap();
            }
        }
        let (packed, _) = backup::pack(&state.encode()).unwrap();
        writeln!(text, "watermark {}\nbackup {}", hex(&watermark::encode(12, 1)), hex(&packed)).unwrap();
        text
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/mon/store-1.txt")
}

#[test]
fn this_release_writes_what_is_kept() {
    assert_eq!((LAYOUT, record::VERSION), (1, 1), "a new format needs a file of its own; this one stays");
    let dir = tempfile::tempdir().unwrap();
    let text = written(dir.path());
    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::write(kept(), &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(kept()).unwrap(), text);
}

#[test]
fn what_release_one_wrote_is_read() {
    let text = std::fs::read_to_string(kept()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Store::open_any(dir.path(), true, committer_inline()).unwrap();
        let mut batch = WriteBatch::default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (what, first) = (fields.next().unwrap(), unhex(fields.next().unwrap()));
            match what {
                "watermark" => {
                    assert_eq!(watermark::decode(first.as_slice().try_into().unwrap()), Some((12, 1)));
                }
                "backup" => assert_eq!(backup::unpack(&first).unwrap(), state()),
                family => {
                    let family = store.inner.db.cf_handle(family).unwrap();
                    batch.put_cf(family, first, unhex(fields.next().unwrap()));
                }
            }
        }
        store.write(batch).unwrap();
        store.sync().unwrap();
    }
    let mut store = Store::open(dir.path(), &whose(), true, committer_inline()).unwrap();
    store.verify().unwrap();
    Product::run(async {
        let log = RaftLogStorage::<Product>::get_log_state(&mut store).await.unwrap();
        assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(id(2)), Some(id(5))));
        let read = RaftLogReader::<Product>::read_vote(&mut store).await.unwrap();
        assert_eq!(read, Some(ballot()));
        let entries = RaftLogReader::<Product>::try_get_log_entries(&mut store, ..).await.unwrap();
        assert_eq!(entries, (3..=5).map(entry).collect::<Vec<_>>());
        assert_eq!(RaftLogStorage::<Product>::read_committed(&mut store).await.unwrap(), Some(id(4)));
    });
    let snapshot = store.snapshot().unwrap().unwrap();
    assert_eq!(State::decode(snapshot.snapshot).unwrap(), state());
    assert_eq!(snapshot.meta.last_log_id, Some(id(3)));
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// Flips, cuts, doubles or fills.
    fn harm(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                _ => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
            }
        }
    }
}

/// The same record around other contents, with a checksum that fits, so that what reads the inside is reached.
fn reframed(key: &[u8], value: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = value[..8].to_vec();
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    let sum = record::checksum(&out[4..12], key, payload);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

#[test]
fn contents_that_make_no_sense_are_refused_and_break_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = written(dir.path());
    let mut store = Store::open(dir.path(), &whose(), true, committer_inline()).unwrap();
    let records: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [family, key, value] = fields[..] else { return None };
            Some((family, unhex(key), unhex(value)))
        })
        .collect();
    let mut random = Random(0x5eed);
    let mut refused = 0;
    for _ in 0..4_000 {
        let (name, key, value) = &records[random.below(records.len())];
        let mut payload = value[16..].to_vec();
        random.harm(&mut payload);
        let harmed = reframed(key, value, &payload);
        let put = |value: &[u8]| {
            let mut batch = WriteBatch::default();
            batch.put_cf(store.inner.db.cf_handle(name).unwrap(), key, value);
            store.write(batch).unwrap();
        };
        put(&harmed);
        let seen = Product::run(async {
            let mut reader = store.clone();
            [
                store.verify().is_ok(),
                store.identity().is_ok(),
                store.snapshot().map(|found| found.map(|found| State::decode(found.snapshot).is_ok())).is_ok(),
                RaftLogStorage::<Product>::get_log_state(&mut reader).await.is_ok(),
                RaftLogReader::<Product>::read_vote(&mut reader).await.is_ok(),
                RaftLogReader::<Product>::try_get_log_entries(&mut reader, ..).await.is_ok(),
            ]
        });
        refused += usize::from(seen.contains(&false));
        put(value);
    }
    assert!(refused > 500, "{refused} of 4000 were noticed");
    store.verify().unwrap();
    let state = RaftLogStorage::<Product>::get_log_state(&mut store);
    assert_eq!(Product::run(state).unwrap().last_log_id, Some(id(5)));
}
