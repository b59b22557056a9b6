//! Real monitors under a real supervisor: killed, damaged, refused.
//!
//! Needs the binary: `cargo build -p nacre-cli` beside this, or `NACRE_BIN`.
//! `NACRE_KILLS=50 cargo nextest run -p nacre-tests` is the long run; the usual one kills the leader ten times.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod daemons;
mod identities;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nacre_mon_api::{MonClient, v1};
use nacre_net::tls::{self, Credentials, TlsClient, Trust, files};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The program under test.
fn nacre_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("NACRE_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().unwrap().parent().unwrap().join("nacre");
    assert!(beside.exists(), "{} is missing: cargo build -p nacre-cli", beside.display());
    beside
}

/// A loopback address of this test's own, so that tests can use the same ports side by side.
fn own_address() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let pid = u64::from(std::process::id());
    format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 250, NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Cluster {
    folder: TempDir,
    address: String,
    port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn up() -> Cluster {
        let (folder, address) = (TempDir::new().unwrap(), own_address());
        let port = TcpListener::bind((address.as_str(), 0)).unwrap().local_addr().unwrap().port().clamp(10_000, 60_000);
        let text = format!(
            "name = \"pearl\"\naddress = \"{address}\"\nbase_port = {port}\nmonitors = 3\nosds = 0\nmds = 0\ns3 = 0\n"
        );
        std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cluster = Cluster { folder, address, port, runtime };
        cluster.nacre(&["up"]);
        cluster
    }

    fn try_nacre(&self, args: &[&str]) -> (bool, String, String) {
        let output = Command::new(nacre_bin()).args(args).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    fn nacre(&self, args: &[&str]) -> String {
        let (good, stdout, stderr) = self.try_nacre(args);
        assert!(good, "nacre {args:?}: {stdout}{stderr}");
        stdout
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("var/pearl")
    }

    fn tls(&self, folder: &Path) -> TlsClient {
        let stored = files::load(folder).unwrap().unwrap();
        let credentials = Credentials::new(&stored.pair, &stored.authorities[0]).unwrap();
        let trust = Trust::new(credentials.identity().cluster, stored.authorities).unwrap();
        TlsClient::new(trust, credentials, tls::ALPN_GRPC).unwrap()
    }

    fn client(&self, patience: Duration) -> MonClient {
        let _inside = self.runtime.enter();
        let addresses = (0..3).map(|mon| format!("{}:{}", self.address, self.port + mon));
        MonClient::new(&self.tls(&self.data().join("admin")), addresses, patience)
    }

    fn only(&self, mon: u16, patience: Duration) -> MonClient {
        let _inside = self.runtime.enter();
        let address = format!("{}:{}", self.address, self.port + mon);
        MonClient::new(&self.tls(&self.data().join("admin")), [address], patience)
    }

    fn pid(&self, mon: u64) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join(format!("run/mon.{mon}.pid"))).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// The cluster's authority, as a thief would have it who got hold of a monitor's data folder.
    fn authority(&self) -> nacre_net::identity::Authority {
        use nacre_net::identity::{Authority, Keypair, SealKey};
        use prost::Message;
        let folder = self.data().join("mon.0");
        let sealed = std::fs::read(folder.join("authority.sealed")).unwrap();
        // Behind the header of a record.
        let record = v1::AuthorityRecord::decode(&sealed[16..]).unwrap();
        let seal = SealKey::read(&std::fs::read_to_string(folder.join("seal.key")).unwrap()).unwrap();
        let key = seal.open("nacre authority key", &record.sealed).unwrap();
        let id = std::fs::read_to_string(self.data().join("fsid")).unwrap().trim().parse().unwrap();
        Authority::open(id, Keypair { certificate: record.certificate.to_vec(), key }).unwrap()
    }

    fn status(&self) -> v1::StatusReply {
        self.runtime.block_on(self.client(Duration::from_secs(20)).status(false)).unwrap()
    }

    /// The notes of the cluster log and how often each is there.
    fn notes(&self) -> BTreeMap<String, u32> {
        let text = self.nacre(&["log", "-n", "2000", "--json"]);
        let mut notes = BTreeMap::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            *notes.entry(line["text"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        notes
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for mon in 0..3 {
                let log = std::fs::read_to_string(self.data().join(format!("log/mon.{mon}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let (first, rest) = lines.split_at(lines.len().min(40));
                let last = rest.split_at(rest.len().saturating_sub(15)).1;
                report(&format!("--- mon.{mon}\n{}\n...\n{}", first.join("\n"), last.join("\n")));
            }
        }
        self.try_nacre(&["down"]);
    }
}

fn note(text: String) -> v1::command::Verb {
    v1::command::Verb::Note(v1::Note { level: "info".into(), text, channel: String::new() })
}

/// Says something to whoever reads the test's output: why it failed, or a figure.
fn report(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at other processes, which tell nobody")]
fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} does not come true within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

#[test]
fn commands_survive_the_death_of_leaders() {
    let kills: u32 = std::env::var("NACRE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let cluster = Cluster::up();
    // given a stream of commands
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let writer = {
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        let client = cluster.client(Duration::from_secs(30));
        cluster.runtime.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) && number < 1900 {
                number += 1;
                let text = format!("note {number}");
                client.execute(note(text.clone()), false).await.unwrap();
                acknowledged.lock().unwrap().push(text);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    // when the leader is killed again and again
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        let before = cluster.status();
        let pid = cluster.pid(before.mon).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let killed = Instant::now();
        // Whoever answers now leads: a read of the quorum, not of one monitor.
        let after = cluster.status();
        slowest = slowest.max(killed.elapsed());
        assert!(after.leader.is_some());
        until("the killed monitor comes back", Duration::from_secs(20), || {
            cluster.pid(before.mon).is_some_and(|now| now != pid)
                && cluster
                    .runtime
                    .block_on(cluster.only(before.mon as u16, Duration::from_secs(1)).status(true))
                    .is_ok()
        });
    }
    stop.store(true, Ordering::Relaxed);
    cluster.runtime.block_on(writer).unwrap();
    report(&format!("{kills} kills, slowest answer of a new leader: {slowest:?}"));
    // then nothing that was acknowledged is lost, and nothing was done twice
    let acknowledged = acknowledged.lock().unwrap();
    let notes = cluster.notes();
    assert!(!acknowledged.is_empty());
    for text in acknowledged.iter() {
        assert_eq!(notes.get(text), Some(&1), "{text}");
    }
    assert!(notes.values().all(|count| *count == 1));
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

fn a_damaged_monitor_says_so_and_comes_back(damage: impl Fn(&Path)) {
    let cluster = Cluster::up();
    let client = cluster.client(Duration::from_secs(10));
    for number in 0..20 {
        cluster.runtime.block_on(client.execute(note(format!("note {number}")), false)).unwrap();
    }
    cluster.nacre(&["down"]);
    damage(&journal(&cluster, 1));
    cluster.nacre(&["up"]);
    // It says so, and is a member again under another incarnation, with all there is.
    until("mon.1 is let in again", Duration::from_secs(30), || {
        let status = cluster.status();
        status.members.len() == 3
            && status.members.iter().any(|member| member.mon == 1 && member.voter && member.node != (1 << 16 | 1))
    });
    let log = std::fs::read_to_string(cluster.data().join("log/mon.1.log")).unwrap();
    assert!(log.contains("the store is damaged"), "{log}");
    until("mon.1 has caught up", Duration::from_secs(30), || {
        let own = cluster.runtime.block_on(cluster.only(1, Duration::from_secs(5)).status(true)).unwrap();
        own.commands == cluster.status().commands
    });
}

#[test]
fn a_cut_log_is_noticed() {
    a_damaged_monitor_says_so_and_comes_back(|journal| {
        let file = std::fs::OpenOptions::new().write(true).open(journal).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - length / 3).unwrap();
    });
}

#[test]
fn a_flipped_bit_in_the_log_is_noticed() {
    a_damaged_monitor_says_so_and_comes_back(|journal| {
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
    until("all three vote again", Duration::from_secs(30), || {
        cluster.status().members.iter().filter(|member| member.voter).count() == 3
    });
    assert!(cluster.nacre(&["config", "get", "mon.pg.per_osd_target"]).contains("77"));
}

#[test]
fn strangers_and_the_powerless_are_refused_and_nothing_changes() {
    use nacre_net::identity::{Authority, Caps, Grant, Kind, Name, UnixTime};
    let cluster = Cluster::up();
    let before = cluster.status();
    let ours = cluster.authority();
    let id = ours.cluster();
    let foreign = Authority::create(id, UnixTime::now(), Duration::from_secs(3600)).unwrap();
    let name = || Name::new(Kind::Client, "eve").unwrap();
    let hour = Duration::from_secs(3600);
    let now = UnixTime::now();
    let grant = |caps: Caps| Grant { name: name(), caps, generation: 1 };
    let cases = [
        ("foreign", foreign.issue(&grant(Caps::all()), now, hour).unwrap(), foreign.certificate().to_vec()),
        ("expired", ours.issue(&grant(Caps::all()), now.before(hour * 48), hour).unwrap(), ours.certificate().to_vec()),
        ("powerless", ours.issue(&grant(Caps::default()), now, hour).unwrap(), ours.certificate().to_vec()),
    ];
    for (what, pair, authority) in cases {
        let client = {
            let _inside = cluster.runtime.enter();
            let credentials = Credentials::new(&pair, &authority).unwrap();
            // It believes us; the question is whether we believe it.
            let trust = Trust::new(id, vec![ours.certificate().to_vec()]).unwrap();
            let tls = TlsClient::new(trust, credentials, tls::ALPN_GRPC).unwrap();
            MonClient::new(&tls, [format!("{}:{}", cluster.address, cluster.port)], Duration::from_millis(500))
        };
        cluster.runtime.block_on(async {
            use v1::change_quorum_request::Change;
            assert!(client.execute(note("evil".into()), false).await.is_err(), "{what} execute");
            assert!(client.status(true).await.is_err(), "{what} status");
            assert!(client.subscribe(0).await.is_err(), "{what} subscribe");
            assert!(client.log(v1::LogRequest::default()).await.is_err(), "{what} log");
            assert!(client.backup().await.is_err(), "{what} backup");
            assert!(client.change_quorum(Change::Remove(1)).await.is_err(), "{what} change quorum");
        });
    }
    let after = cluster.status();
    assert_eq!((after.epoch, &after.map), (before.epoch, &before.map));
    assert!(!cluster.notes().contains_key("evil"));
    until("refusals are in the audit log", Duration::from_secs(10), || {
        let audit = cluster.nacre(&["log", "--channel", "audit"]);
        audit.contains("client.eve may not") && audit.contains("a stranger")
    });
}
