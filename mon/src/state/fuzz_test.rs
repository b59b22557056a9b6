//! The short form of the fuzz target `mon_state`: true bytes, changed a little, at random but the same on each run.
//! `NACRE_FUZZ_ROUNDS` for more; a round that fails names its seed, and `NACRE_FUZZ_SEED` has it again.

use std::collections::BTreeSet;

use nacre_mon_api::v1::command::Verb;
use nacre_net::identity::join::{Member, authority_fingerprint};
use nacre_net::identity::{Caps, Kind};
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{FlagSet, OsdBoot, OsdDown, PoolCreate, SettingSet};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::identity::{AuthorityRecord, Change};
use crate::raft::{LeaderId, Member as Monitor};
use crate::store::record::{self, Kind as Record};

/// True bytes with some of them other, gone, or more.
fn changed(rng: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.insert(at, rng.random()),
            // A number of ten bytes: lengths and counts that cannot be.
            4 => drop(bytes.splice(at..at, [0xff; 9].into_iter().chain([1]))),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

fn each_round(mut round: impl FnMut(&mut StdRng)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("NACRE_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NACRE_FUZZ_ROUNDS").unwrap_or(1000),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| round(&mut StdRng::seed_from_u64(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("NACRE_FUZZ_SEED={seed} shows it");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Commands of every sort that a state takes.
fn commands() -> Vec<v1::Command> {
    let boot = |osd: u32| OsdBoot {
        osd,
        uuid: vec![osd as u8 + 1; 16].into(),
        public: vec![format!("10.0.0.{osd}:6800")],
        cluster: vec![format!("10.0.1.{osd}:6800")],
        host: format!("h{osd}"),
        capacity_bytes: 1 << 40,
        ..OsdBoot::default()
    };
    let map = |verb| Verb::Map(MapCommand { verb: Some(verb) });
    let identity = |change: &Change| Verb::Identity(wire::change_to(change));
    let authority = |byte: u8| AuthorityRecord { certificate: vec![byte; 40], sealed: vec![byte; 8] };
    let setting = SettingSet { scope: "global".into(), name: "mon.pg.per_osd_target".into(), value: "66".into() };
    let member = Member::new(Caps::of_daemon(Kind::Osd), 1);
    let verbs = [
        Verb::Note(v1::Note { level: "info".into(), text: "hello".into(), channel: String::new() }),
        map(Map::OsdBoot(boot(0))),
        map(Map::OsdBoot(boot(1))),
        map(Map::OsdBoot(boot(2))),
        map(Map::PoolCreate(PoolCreate { name: "data".into(), ..PoolCreate::default() })),
        map(Map::SettingSet(setting)),
        map(Map::FlagSet(FlagSet {
            flag: "noout".into(),
            target: "cluster".into(),
            until_ms: Some(9_000),
            why: "w".into(),
        })),
        map(Map::OsdDown(OsdDown { osds: vec![1], dead: false })),
        identity(&Change::Born(authority(1), vec![("osd.4".parse().unwrap(), member)])),
        identity(&Change::NextMade(authority(2))),
        identity(&Change::Switched(authority_fingerprint(&[2; 40]))),
        identity(&Change::Retired(authority_fingerprint(&[1; 40]))),
    ];
    verbs.map(|verb| v1::Command { verb: Some(verb) }).into()
}

fn entry(index: u64, command: Vec<u8>) -> Entry {
    let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
    let request = Request {
        session: 7,
        sequence: index,
        at_ms: 1_000 + index,
        who: "client.admin".into(),
        command: command.into(),
    };
    Entry { log_id, payload: EntryPayload::Normal(request) }
}

/// A state that has seen each command once.
fn full() -> State {
    let mut state = State { map: Arc::new(ClusterMap::empty(nacre_proto::ids::Uuid([3; 16]))), ..State::default() };
    for (index, command) in commands().iter().enumerate() {
        let applied = state.apply(&entry(index as u64 + 1, command.encode_to_vec()));
        assert_eq!(applied.outcome.code, 0, "{command:?}: {}", applied.outcome.text);
    }
    assert_eq!(state.map.authorities.len(), 1);
    state
}

#[test]
fn a_snapshot_of_any_bytes_is_refused_or_read() {
    let bytes = full().encode();
    assert_eq!(State::decode(bytes.clone()).unwrap(), full());
    let mut read = 0;
    each_round(|rng| {
        let Ok(state) = State::decode(changed(rng, &bytes).into()) else { return };
        read += 1;
        // What was read can be written and read again, and goes on.
        let mut again = State::decode(state.encode()).unwrap();
        assert_eq!(again.encode(), state.encode());
        again.apply(&entry(99, commands()[5].encode_to_vec()));
    });
    assert!(read > 10, "only {read} were read: the rest of the decoder is not tried");
}

#[test]
fn a_command_of_any_bytes_is_refused_or_done_alike() {
    let (full, commands) = (full(), commands());
    let mut done = 0;
    each_round(|rng| {
        let (mut one, mut other) = (full.clone(), State::decode(full.encode()).unwrap());
        for index in 100..104 {
            let true_one = commands[rng.random_range(0..commands.len())].encode_to_vec();
            let entry = entry(index, changed(rng, &true_one));
            let applied = one.apply(&entry);
            done += u32::from(applied.outcome.code == 0);
            assert_eq!(other.apply(&entry), applied);
        }
        assert!(one == other && State::decode(one.encode()).unwrap() == one);
    });
    assert!(done > 10, "only {done} were done");
}

#[test]
fn entries_of_any_bytes_between_monitors_are_refused_or_applied_alike() {
    let full = full();
    let member = |mon: u64| (mon, Monitor { mon, address: format!("10.0.0.{mon}:6100") });
    let two =
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 3])], BTreeMap::from([1, 2, 3].map(member)));
    let id = |index| LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index };
    let entries = [
        entry(100, commands()[5].encode_to_vec()),
        Entry { log_id: id(101), payload: EntryPayload::Membership(two.unwrap()) },
        Entry { log_id: id(102), payload: EntryPayload::Blank },
    ];
    let bytes = v1::AppendRequest {
        ballot: None,
        previous: Some(convert::log_id_to(&id(99))),
        entries: entries.iter().map(convert::entry_to).collect(),
        committed: Some(convert::log_id_to(&id(102))),
    }
    .encode_to_vec();
    let mut read = 0;
    each_round(|rng| {
        let Ok(message) = v1::AppendRequest::decode(&*changed(rng, &bytes)) else { return };
        let (mut one, mut other) = (full.clone(), full.clone());
        for entry in message.entries.into_iter().filter_map(|entry| convert::entry_from(entry).ok()) {
            assert_eq!(convert::entry_from(convert::entry_to(&entry)).unwrap(), entry);
            read += 1;
            assert_eq!(one.apply(&entry), other.apply(&entry));
        }
        assert!(one == other && State::decode(one.encode()).unwrap() == one);
    });
    assert!(read > 10, "only {read} were read");
}

#[test]
fn a_record_of_any_bytes_is_refused_or_is_the_one_that_was_written() {
    let payload = full().encode();
    let written = record::encode(Record::Snapshot, b"snapshot", &payload);
    each_round(|rng| {
        let bytes = changed(rng, &written);
        if let Ok(read) = record::decode(Record::Snapshot, b"snapshot", &bytes) {
            assert!(read == payload && bytes == written);
        }
        let _ = crate::backup::unpack(&bytes);
    });
}
