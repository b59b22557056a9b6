//! The cluster under test: three monitors and four OSDs, as `nacre up` starts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nacre_client::{Cluster, Order, Settings};
use nacre_mon_api::{MonClient, v1};
use nacre_net::tls::{self, Credentials, TlsClient, Trust, files};
use nacre_proto::v1::MapCommand;
use nacre_proto::v1::map_command::Verb as Map;
use tempfile::TempDir;

/// OSDs of the cluster.
pub(crate) const OSDS: u32 = 4;
/// Monitors of the cluster.
pub(crate) const MONITORS: u32 = 3;

/// A cluster that is stopped when this goes, also if a test fails.
pub(crate) struct Running {
    folder: TempDir,
}

fn nacre_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("NACRE_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().unwrap().parent().unwrap().join("nacre");
    assert!(beside.exists(), "{} is missing: cargo build -p nacre-cli", beside.display());
    beside
}

impl Running {
    /// Founds it.
    pub(crate) fn start() -> Running {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let hosts: String = (0..OSDS).map(|host| format!("[[hosts]]\nname = \"h{host}\"\n")).collect();
        let text = format!(
            "name = \"pearl\"\naddress = \"127.{}.{b}.{c}\"\nmonitors = {MONITORS}\nosds = {OSDS}\nmds = 0\ns3 = 0\n\
             [osd_defaults]\nsize = \"512MiB\"\nmemory = \"64MiB\"\n{hosts}\
             [[pools]]\nname = \"data\"\napplication = \"test\"\npg_num = 16\n",
            a.wrapping_add(60)
        );
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
        let running = Running { folder };
        let (good, said) = running.nacre(&["up"]);
        assert!(good, "{said}");
        running
    }

    /// A verb, and all it said.
    pub(crate) fn nacre(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new(nacre_bin()).args(args).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("var/pearl")
    }

    /// The process that is a daemon now, if there is one.
    pub(crate) fn pid(&self, daemon: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.data().join(format!("run/{daemon}.pid"))).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        // A file of a process that is gone may name somebody else's by now.
        let args = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let (noun, id) = daemon.split_once('.')?;
        let args: Vec<&[u8]> = args.split(|byte| *byte == 0).collect();
        let is_it =
            args.get(1) == Some(&noun.as_bytes()) && args.windows(2).any(|w| w == [&b"--id"[..], id.as_bytes()]);
        is_it.then_some(pid)
    }

    /// Sends a signal, as in `KILL`.
    pub(crate) fn signal(&self, daemon: &str, signal: &str) {
        if let Some(pid) = self.pid(daemon) {
            // It may have ended by itself in between.
            let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
        }
    }

    fn monitors(&self) -> Vec<String> {
        let ports = std::fs::read_to_string(self.data().join("ports.json")).unwrap();
        let ports: Vec<serde_json::Value> = serde_json::from_str(&ports).unwrap();
        let monitors = ports.iter().filter(|daemon| daemon["name"].as_str().unwrap().starts_with("mon."));
        monitors.map(|daemon| daemon["listens"].as_str().unwrap().to_owned()).collect()
    }

    /// A client, with a session of its own.
    pub(crate) async fn client(&self, patience: Duration) -> Cluster {
        let mut settings = Settings::of_folder(&self.data().join("admin"), self.monitors()).unwrap();
        settings.patience = Some(patience);
        Cluster::connect(settings).await.unwrap()
    }

    /// Asks the monitors for a change of the map.
    pub(crate) async fn change(&self, verb: Map) {
        let stored = files::load(&self.data().join("admin")).unwrap().unwrap();
        let credentials = Credentials::new(&stored.pair, &stored.authorities[0]).unwrap();
        let trust = Trust::new(credentials.identity().cluster, stored.authorities).unwrap();
        let tls = TlsClient::new(trust, credentials, tls::ALPN_GRPC).unwrap();
        let monitors = MonClient::new(&tls, self.monitors(), Duration::from_secs(30));
        let verb = v1::command::Verb::Map(MapCommand { verb: Some(verb) });
        // Refused where it makes no sense now, as an OSD that is out already.
        let _ = monitors.execute(verb, false).await;
    }

    /// Waits until every pg is active and clean, and says how long it took.
    pub(crate) async fn wait_until_clean(&self, bound: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let (clean, said) = self.nacre(&["pg", "explain"]);
            if clean {
                return began.elapsed();
            }
            assert!(began.elapsed() < bound, "not clean after {bound:?}:\n{said}{}", self.nacre(&["osd", "tree"]).1);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Compares every byte of every pg; nothing may be found.
    pub(crate) async fn scrub_everything(&self, bound: Duration) {
        let cluster = self.client(Duration::from_secs(30)).await;
        let pgs: Vec<_> = cluster.places();
        for (pg, _) in &pgs {
            cluster.order(*pg, Order::Scrub { deep: true }).await.unwrap();
        }
        let began = Instant::now();
        for (pg, place) in pgs {
            loop {
                let lines = cluster.look(place.primary.unwrap(), Some(pg)).await.unwrap();
                let line = &lines[0];
                assert!(line.inconsistent.is_empty(), "pg {pg}: {:?}", line.inconsistent);
                if !line.scrubbing {
                    break;
                }
                assert!(began.elapsed() < bound, "pg {pg} is still being scrubbed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Lines of the daemons' logs that no fault explains.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        let logs = std::fs::read_dir(self.data().join("log")).unwrap();
        for log in logs.map(|log| log.unwrap().path()) {
            let text = std::fs::read_to_string(&log).unwrap();
            let bad = text.lines().filter(|line| line.contains("panicked at") || line.contains(" ERROR "));
            found.extend(bad.take(5).map(|line| format!("{}: {line}", name(&log))));
        }
        found
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        for osd in 0..OSDS {
            self.signal(&format!("osd.{osd}"), "CONT");
        }
        for mon in 0..MONITORS {
            self.signal(&format!("mon.{mon}"), "CONT");
        }
        self.nacre(&["down"]);
        if std::thread::panicking()
            && let Some(keep) = std::env::var_os("NACRE_CHAOS_KEEP")
        {
            let copied = Command::new("cp").arg("-r").arg(self.data().join("log")).arg(keep).status();
            println!("chaos: logs kept: {}", copied.is_ok_and(|status| status.success()));
        }
    }
}
