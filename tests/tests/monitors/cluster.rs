//! A cluster of three monitors in a folder of its own, for one test. Started by `nacre up`, stopped by `nacre down`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nacre_mon_api::{MonClient, v1};
use nacre_net::identity::{Authority, Keypair, SealKey};
use nacre_net::tls::{self, Credentials, TlsClient, Trust, files};
use prost::Message;
use rustix::process::Pid;
use tempfile::TempDir;

/// The program under test.
pub(crate) fn nacre_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("NACRE_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().unwrap().parent().unwrap().join("nacre");
    assert!(beside.exists(), "{} is missing: cargo build -p nacre-cli", beside.display());
    beside
}

/// A loopback address of this test's own, so that tests can use the same ports side by side.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let pid = u64::from(std::process::id());
    format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 250, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A cluster in a folder of its own, gone when dropped.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Cluster {
    pub(crate) fn up() -> Cluster {
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

    pub(crate) fn try_nacre(&self, args: &[&str]) -> (bool, String, String) {
        let output = Command::new(nacre_bin()).args(args).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    pub(crate) fn nacre(&self, args: &[&str]) -> String {
        let (good, stdout, stderr) = self.try_nacre(args);
        assert!(good, "nacre {args:?}: {stdout}{stderr}");
        stdout
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("var/pearl")
    }

    pub(crate) fn tls(&self, folder: &Path) -> TlsClient {
        let stored = files::load(folder).unwrap().unwrap();
        let credentials = Credentials::new(&stored.pair, &stored.authorities[0]).unwrap();
        let trust = Trust::new(credentials.identity().cluster, stored.authorities).unwrap();
        TlsClient::new(trust, credentials, tls::ALPN_GRPC).unwrap()
    }

    pub(crate) fn client(&self, patience: Duration) -> MonClient {
        let _inside = self.runtime.enter();
        let addresses = (0..3).map(|mon| format!("{}:{}", self.address, self.port + mon));
        MonClient::new(&self.tls(&self.data().join("admin")), addresses, patience)
    }

    pub(crate) fn only(&self, mon: u16, patience: Duration) -> MonClient {
        let _inside = self.runtime.enter();
        let address = format!("{}:{}", self.address, self.port + mon);
        MonClient::new(&self.tls(&self.data().join("admin")), [address], patience)
    }

    pub(crate) fn pid(&self, mon: u64) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join(format!("run/mon.{mon}.pid"))).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// The cluster's authority, as a thief would have it who got hold of a monitor's data folder.
    pub(crate) fn authority(&self) -> Authority {
        let folder = self.data().join("mon.0");
        let sealed = std::fs::read(folder.join("authority.sealed")).unwrap();
        // Behind the header of a record.
        let record = v1::AuthorityRecord::decode(&sealed[16..]).unwrap();
        let seal = SealKey::read(&std::fs::read_to_string(folder.join("seal.key")).unwrap()).unwrap();
        let key = seal.open("nacre authority key", &record.sealed).unwrap();
        let id = std::fs::read_to_string(self.data().join("fsid")).unwrap().trim().parse().unwrap();
        Authority::open(id, Keypair { certificate: record.certificate.to_vec(), key }).unwrap()
    }

    /// What the quorum says, as soon as there is one.
    pub(crate) fn status(&self) -> v1::StatusReply {
        self.runtime.block_on(self.client(Duration::from_secs(120)).status(false)).unwrap()
    }

    /// The notes of the cluster log and how often each is there.
    pub(crate) fn notes(&self) -> BTreeMap<String, u32> {
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

pub(crate) fn note(text: String) -> v1::command::Verb {
    v1::command::Verb::Note(v1::Note { level: "info".into(), text, channel: String::new() })
}

/// Says something to whoever reads the test's output: why it failed, or a figure.
pub(crate) fn report(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Waits for something to come true, and says how long it took.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at other processes, which tell nobody")]
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} does not come true within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}
