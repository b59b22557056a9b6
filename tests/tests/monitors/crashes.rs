//! Monitors that die, all at once or one after the other, and monitors whose disk has lost something.
//!
//! `NACRE_KILLS=50` is the long form (`./x soak mon`): that many kills; the usual one kills leaders for a minute.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nacre_mon_api::{MonClient, v1};
use nacre_proto::status::Retry;
use rustix::process::{Signal, kill_process};

use crate::cluster::{Cluster, note, report, until};

/// How long is waited for what must come about, however starved the machine: slowness is reported, not judged.
const EVER: Duration = Duration::from_secs(500);

/// Streams of commands at once.
const WRITERS: usize = 4;

/// The middle and the worst of what was measured.
fn median_and_worst(mut all: Vec<Duration>) -> String {
    all.sort();
    format!("median {:?}, worst {:?}", all[all.len() / 2], all[all.len() - 1])
}

#[test]
fn commands_survive_the_death_of_leaders() {
    let asked: Option<u32> = std::env::var("NACRE_KILLS").ok().and_then(|text| text.parse().ok());
    let (most, enough) = asked.map_or((50, Duration::from_secs(60)), |kills| (kills, Duration::MAX));
    let began = Instant::now();
    let cluster = Cluster::up();
    // given streams of commands, each sent until it is acknowledged, under one number. Each kill has its share of them:
    // the cluster log, by which they are counted, keeps the newest two thousand lines.
    let share = 1700 / most as usize;
    let allowed = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        let (allowed, begun) = (allowed.clone(), begun.clone());
        let client = cluster.client(Duration::from_secs(30));
        let stream = async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let turn = begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |begun| {
                    (begun < allowed.load(Ordering::Relaxed)).then_some(begun + 1)
                });
                if turn.is_ok() {
                    number += 1;
                    let text = format!("writer {writer} note {number}");
                    while let Err(error) = client.execute_as(number, note(text.clone()), false).await {
                        assert_ne!(error.code.retry(), Retry::Never, "{text}: {error}");
                        report(&format!("{text} is sent again: {error}"));
                    }
                    acknowledged.lock().unwrap().push(text);
                }
                // So that the share lasts beyond the kill.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        writers.spawn_on(stream, cluster.runtime.handle());
    }
    // when the leader is killed again and again, while the streams flow
    let each: Vec<MonClient> = (0..3).map(|mon| cluster.only(mon, Duration::from_secs(1))).collect();
    let own = |mon: usize| cluster.runtime.block_on(each[mon].status(true)).ok();
    let (mut elected, mut served, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let have = || acknowledged.lock().unwrap().len();
    while elected.len() < most as usize && (elected.len() < 5 || began.elapsed() < enough) {
        let first = allowed.fetch_add(share, Ordering::Relaxed);
        until("some of the commands are acknowledged", EVER, || have() >= first + share / 4);
        // Whoever answers leads: a read of the quorum, not of one monitor.
        let before = cluster.status();
        let pid = cluster.pid(before.mon).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let (killed, had) = (Instant::now(), have());
        // A new one leads when it says so itself, and is of use when the quorum answers. It may be the one that was
        // killed: it is back within a moment, and stands like the others.
        until("a later leader is there", EVER, || {
            (0..3).any(|mon| own(mon).is_some_and(|own| own.leader == Some(own.node) && own.term > before.term))
        });
        elected.push(killed.elapsed());
        cluster.status();
        served.push(killed.elapsed());
        // The streams flow again too (those in flight at the kill may have been answered just after it was counted).
        until("the streams go on", EVER, || have() >= (had + WRITERS + 1).min(first + share));
        written.push(killed.elapsed());
        until("the killed monitor comes back", EVER, || {
            cluster.pid(before.mon).is_some_and(|now| now != pid) && own(before.mon as usize).is_some()
        });
        until("the share of this kill is acknowledged", EVER, || have() == first + share);
    }
    stop.store(true, Ordering::Relaxed);
    cluster.runtime.block_on(writers.join_all());
    let late = served.iter().filter(|took| **took > Duration::from_secs(2)).count();
    report(&format!(
        "{} kills under {} commands: a new leader after {}; it served after {}, {late} times later than 2 s; the streams \
         flowed again after {}",
        elected.len(),
        have(),
        median_and_worst(elected),
        median_and_worst(served),
        median_and_worst(written),
    ));
    // then nothing that was acknowledged is lost, and nothing was done twice
    let acknowledged = acknowledged.lock().unwrap();
    // (`nacre log` asks the quorum first: also a monitor that has just come back answers with all of it.)
    let notes = cluster.notes();
    if acknowledged.iter().any(|text| notes.get(text) != Some(&1)) {
        evidence(&cluster, &acknowledged);
    }
    assert!(!acknowledged.is_empty());
    for text in acknowledged.iter() {
        assert_eq!(notes.get(text), Some(&1), "{text}");
    }
    assert!(notes.values().all(|count| *count == 1));
}

/// What each monitor has, when something is missing.
fn evidence(cluster: &Cluster, acknowledged: &[String]) {
    for mon in 0..3 {
        let client = cluster.only(mon, Duration::from_secs(5));
        let lines: Vec<v1::Event> = cluster.runtime.block_on(async {
            let request = v1::LogRequest { after: 0, last: 0, follow: false, channel: String::new(), local: true };
            let mut stream = client.log(request).await.unwrap();
            let mut lines = Vec::new();
            while let Some(line) = stream.message().await.unwrap() {
                lines.push(line);
            }
            lines
        });
        let status = cluster.runtime.block_on(client.status(true)).unwrap();
        let missing: Vec<&String> =
            acknowledged.iter().filter(|text| !lines.iter().any(|line| line.text == **text)).collect();
        report(&format!(
            "mon.{mon}: {} term {} applied {} commands {} snapshot {}, {} lines up to {}; of {} acknowledged it lacks {missing:?}",
            status.role,
            status.term,
            status.applied,
            status.commands,
            status.snapshot,
            lines.len(),
            status.newest_event,
            acknowledged.len(),
        ));
    }
}

#[test]
fn the_state_survives_the_death_of_all() {
    let cluster = Cluster::up();
    let client = cluster.client(Duration::from_secs(10));
    for number in 0..20 {
        cluster.runtime.block_on(client.execute(note(format!("note {number}")), false)).unwrap();
    }
    cluster.nacre(&["config", "set", "mon.pg.per_osd_target", "77"]);
    let before = cluster.status();
    for mon in 0..3 {
        kill_process(cluster.pid(mon).unwrap(), Signal::KILL).unwrap();
    }
    let after = cluster.status();
    assert_eq!((after.epoch, &after.map), (before.epoch, &before.map));
    assert_eq!(cluster.notes().keys().filter(|text| text.starts_with("note ")).count(), 20);
    assert!(cluster.nacre(&["config", "get", "mon.pg.per_osd_target"]).contains("77"));
}

/// The newest journal of a monitor's store.
fn journal(cluster: &Cluster, mon: u64) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(cluster.data().join(format!("mon.{mon}/store/db")))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

/// So many commands that the others have a snapshot and no longer the log that leads to it.
fn fill(cluster: &Cluster) {
    cluster.runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let client = cluster.client(Duration::from_secs(120));
            writers.spawn(async move {
                for number in 0..280 {
                    client.execute(note(format!("writer {writer} note {number}")), false).await.unwrap();
                }
            });
        }
        writers.join_all().await;
    });
    until("there are snapshots in place of the log before them", EVER, || {
        (0..3).all(|mon| {
            let perf = cluster.nacre(&["daemon", &format!("mon.{mon}"), "perf", "--json"]);
            let perf: serde_json::Value = serde_json::from_str(&perf).unwrap();
            perf["nacre_mon_log_entries"].as_f64() < perf["nacre_mon_log_last_entry"].as_f64()
        })
    });
}

fn a_damaged_monitor_says_so_and_comes_back_by_snapshot(damage: impl Fn(&Path)) {
    let cluster = Cluster::up();
    fill(&cluster);
    cluster.nacre(&["down"]);
    damage(&journal(&cluster, 1));
    cluster.nacre(&["up"]);
    // It says so, and is a member again under another incarnation, with all there is.
    until("mon.1 is let in again", EVER, || {
        let status = cluster.status();
        status.members.len() == 3
            && status.members.iter().any(|member| member.mon == 1 && member.voter && member.node != (1 << 16 | 1))
    });
    let log = std::fs::read_to_string(cluster.data().join("log/mon.1.log")).unwrap();
    assert!(log.contains("the store is damaged"), "{log}");
    until("mon.1 has caught up", EVER, || {
        let own = cluster.runtime.block_on(cluster.only(1, Duration::from_secs(5)).status(true)).unwrap();
        // What it has up to its snapshot came in one piece: nobody has the log of that any more.
        own.commands == cluster.status().commands && own.snapshot > 0
    });
}

#[test]
fn a_cut_log_is_noticed() {
    a_damaged_monitor_says_so_and_comes_back_by_snapshot(|journal| {
        let file = std::fs::OpenOptions::new().write(true).open(journal).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - length / 3).unwrap();
    });
}

#[test]
fn a_flipped_bit_in_the_log_is_noticed() {
    a_damaged_monitor_says_so_and_comes_back_by_snapshot(|journal| {
        let mut bytes = std::fs::read(journal).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        std::fs::write(journal, bytes).unwrap();
    });
}

#[test]
fn a_lost_quorum_is_rebuilt_from_a_backup() {
    let cluster = Cluster::up();
    cluster.nacre(&["config", "set", "mon.pg.per_osd_target", "77"]);
    let file = cluster.folder.path().join("mon.backup");
    cluster.nacre(&["mon", "backup", file.to_str().unwrap()]);
    cluster.nacre(&["down"]);
    for mon in 0..3 {
        std::fs::remove_dir_all(cluster.data().join(format!("mon.{mon}/store"))).unwrap();
    }
    cluster.nacre(&["mon", "restore", file.to_str().unwrap()]);
    cluster.nacre(&["up"]);
    until("all three vote again", EVER, || cluster.status().members.iter().filter(|member| member.voter).count() == 3);
    assert!(cluster.nacre(&["config", "get", "mon.pg.per_osd_target"]).contains("77"));
}
