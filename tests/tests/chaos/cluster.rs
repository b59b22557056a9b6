//! The cluster under test: three monitors and four OSDs on four hosts, as `nacre up` starts them: all on this machine's
//! loopback, or each host in a network of its own.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nacre_client::{Cluster, Order, Settings};
use nacre_mon_api::{MonClient, v1};
use nacre_net::tls::{self, Credentials, TlsClient, Trust, files};
use nacre_proto::v1::MapCommand;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_tests::netns::Network;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// OSDs of the cluster.
pub(crate) const OSDS: u32 = 4;
/// Monitors of the cluster.
pub(crate) const MONITORS: u32 = 3;

/// A cluster that is stopped when this goes, also if a test fails.
pub(crate) struct Running {
    folder: TempDir,
    /// The hosts' network, if each has its own.
    pub(crate) network: Option<Network>,
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
    /// Founds it, with so many MiB for each OSD.
    pub(crate) fn start(network: Option<Network>, mib: u64) -> Running {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let loopback = format!("127.{}.{b}.{c}", a.wrapping_add(60));
        let address = |host: u32| network.as_ref().map_or_else(|| loopback.clone(), |network| network.address(host));
        let host = |host: u32| format!("[[hosts]]\nname = \"h{host}\"\naddress = \"{}\"\n", address(host));
        let hosts: String = (0..OSDS).map(host).collect();
        // Whatever the machine: what happens between the shards of an OSD is put to the test as well.
        let osds: String = (0..OSDS).map(|osd| format!("[[osds]]\nshards = {}\n", 1 + osd % 3)).collect();
        let text = format!(
            "name = \"pearl\"\naddress = \"{}\"\nmonitors = {MONITORS}\nmds = 0\ns3 = 0\n\
             [osd_defaults]\nsize = \"{mib}MiB\"\nmemory = \"64MiB\"\n{osds}{hosts}\
             [[pools]]\nname = \"data\"\napplication = \"test\"\npg_num = 16\n",
            address(0)
        );
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
        let running = Running { folder, network };
        for host in running.hosts() {
            let mut up = match &running.network {
                None => Command::new(nacre_bin()),
                Some(network) => network.inside(host, &nacre_bin()),
            };
            up.arg("up").args(running.part(host));
            let (good, said) = running.run(up);
            assert!(good, "{said}");
        }
        running
    }

    /// Hosts that have a supervisor of their own; one stands for all where they share a network.
    fn hosts(&self) -> std::ops::Range<u32> {
        0..if self.network.is_some() { OSDS } else { 1 }
    }

    fn part(&self, host: u32) -> Vec<String> {
        self.network.as_ref().map_or_else(Vec::new, |_| vec!["--host".to_owned(), format!("h{host}")])
    }

    /// Stops an OSD in order and starts it again.
    pub(crate) fn restart(&self, osd: u32) {
        let mut command = Command::new(nacre_bin());
        command.arg("restart").arg(format!("osd.{osd}")).args(self.part(osd));
        self.run(command);
    }

    fn run(&self, mut command: Command) -> (bool, String) {
        let output = command.current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// Damages what an OSD's device holds, in so many places. True if it held anything.
    pub(crate) fn flip_bits(&self, osd: u32, places: u32, random: &mut StdRng) -> bool {
        const BLOCK: usize = 4096;
        let path = self.data().join(format!("osd.{osd}/store/block"));
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut head = vec![0; 256 << 20];
        let len = file.read_at(&mut head, 0).unwrap();
        // The first blocks are the store's superblocks, whose loss is the loss of the disk.
        let blocks = head[..len].chunks(BLOCK).enumerate().skip(64);
        let held: Vec<usize> =
            blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(at, _)| at).collect();
        for _ in 0..places.min(held.len() as u32) {
            let at = held[random.random_range(0..held.len())] * BLOCK + random.random_range(0..BLOCK);
            file.write_all_at(&[head[at] ^ 1 << random.random_range(0..8)], at as u64).unwrap();
        }
        file.sync_all().unwrap();
        !held.is_empty()
    }

    /// Takes away what an OSD that is stopped holds.
    pub(crate) fn lose_disk(&self, osd: u32) {
        std::fs::remove_dir_all(self.data().join(format!("osd.{osd}/store"))).unwrap();
    }

    /// A verb, and all it said.
    pub(crate) fn nacre(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(nacre_bin());
        command.args(args);
        self.run(command)
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
        let mut told = 0;
        loop {
            let (clean, said) = self.nacre(&["pg", "explain"]);
            if clean {
                return began.elapsed();
            }
            if began.elapsed().as_secs() / 5 > told {
                told = began.elapsed().as_secs() / 5;
                println!(
                    "chaos: not clean after {} s: {}",
                    told * 5,
                    said.lines().take(6).collect::<Vec<_>>().join(" | ")
                );
            }
            assert!(began.elapsed() < bound, "not clean after {bound:?}:\n{said}{}", self.nacre(&["osd", "tree"]).1);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has copies that lie made anew from good ones: a deep scrub does so by itself.
    pub(crate) async fn repair_everything(&self, bound: Duration) {
        let found = self.order_everywhere(Order::Scrub { deep: true }, bound).await;
        println!("chaos: {found} objects were not repaired at once");
    }

    /// Compares every byte of every pg; nothing may be found.
    pub(crate) async fn scrub_everything(&self, bound: Duration) {
        let found = self.order_everywhere(Order::Scrub { deep: true }, bound).await;
        assert_eq!(found, 0, "copies differ");
    }

    /// Orders something of every pg and waits until it is done. Says how many objects are known to differ.
    async fn order_everywhere(&self, order: Order, bound: Duration) -> usize {
        let cluster = self.client(Duration::from_secs(30)).await;
        let pgs: Vec<_> = cluster.places();
        for (pg, _) in &pgs {
            cluster.order(*pg, order).await.unwrap();
        }
        let mut found = 0;
        let began = Instant::now();
        for (pg, place) in pgs {
            loop {
                let lines = cluster.look(place.primary.unwrap(), Some(pg)).await.unwrap();
                let line = &lines[0];
                if !line.scrubbing {
                    if !line.inconsistent.is_empty() {
                        println!("chaos: pg {pg}: {:?}", line.inconsistent);
                    }
                    found += line.inconsistent.len();
                    break;
                }
                assert!(began.elapsed() < bound, "pg {pg} is still being scrubbed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        found
    }

    /// Lines of the daemons' logs that no fault explains: `expected` are parts of those that one does.
    pub(crate) fn complaints(&self, expected: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let logs = std::fs::read_dir(self.data().join("log")).unwrap();
        for log in logs.map(|log| log.unwrap().path()) {
            let text = std::fs::read_to_string(&log).unwrap();
            let bad = text.lines().filter(|line| line.contains("panicked at") || line.contains(" ERROR "));
            let (explained, bad): (Vec<&str>, Vec<&str>) =
                bad.partition(|line| expected.iter().any(|part| line.contains(part)));
            if !explained.is_empty() {
                println!(
                    "chaos: {}: {} errors that faults explain, as in {}",
                    name(&log),
                    explained.len(),
                    explained[0]
                );
            }
            found.extend(bad.into_iter().take(5).map(|line| format!("{}: {line}", name(&log))));
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
        for host in self.hosts() {
            let mut down = Command::new(nacre_bin());
            down.arg("down").args(self.part(host));
            self.run(down);
        }
        if let Some(keep) = std::env::var_os("NACRE_CHAOS_KEEP") {
            let copied = Command::new("cp").arg("-r").arg(self.data().join("log")).arg(keep).status();
            println!("chaos: logs kept: {}", copied.is_ok_and(|status| status.success()));
        }
    }
}
