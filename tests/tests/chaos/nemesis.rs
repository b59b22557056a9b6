//! What breaks the cluster: one fault after the other, chosen by a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_client::Error;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{OsdIn, OsdOut, OsdReweight, PoolSet};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt, SeedableRng};

use crate::cluster::{MONITORS, OSDS, Running};
use crate::workload::Workload;

/// Daemons that die, stand still, come and go.
pub(crate) const DAEMONS: &[&str] = &[
    "osd killed",
    "osd killed",
    "osd frozen",
    "osd restarted",
    "two osds killed",
    "all osds killed",
    "monitor killed",
    "osd out and in",
    "osd reweighted",
];

/// Hosts that are cut off: wholly, for one direction between two of them, again and again for moments; cables so thin that
/// packets come late or not at all.
pub(crate) const NETWORK: &[&str] = &[
    "host cut off",
    "host cut off",
    "one way cut",
    "cable loose",
    "cable thin",
    "cable thin",
    "osd killed",
    "osd restarted",
];

/// Disks that lie, are full or are replaced by empty ones, pools that change their number of copies.
pub(crate) const DISKS: &[&str] = &[
    "bits flipped",
    "bits flipped",
    "devices filled",
    "disk replaced",
    "pool size changed",
    "osd killed",
    "osd restarted",
];

/// See the module.
pub(crate) struct Nemesis {
    running: Arc<Running>,
    random: StdRng,
    done: BTreeMap<&'static str, u32>,
    /// The one OSD whose device lies, or is lost. Were there two, data could be lost with no fault of the cluster's.
    liar: u32,
}

impl Nemesis {
    /// One that is calm yet.
    pub(crate) fn new(running: Arc<Running>, seed: u64) -> Nemesis {
        let mut random = StdRng::seed_from_u64(seed);
        let liar = random.random_range(0..OSDS);
        Nemesis { running, random, done: BTreeMap::new(), liar }
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let length = self.random.random_range(least..most);
        tokio::time::sleep(Duration::from_millis(length)).await;
    }

    fn osd(&mut self) -> u32 {
        self.random.random_range(0..OSDS)
    }

    /// Breaks one thing after the other.
    pub(crate) async fn rage(&mut self, length: Duration, faults: &[&'static str], workload: &Workload) {
        let until = Instant::now() + length;
        let mut deck = Vec::new();
        while Instant::now() < until {
            // Each comes once before any comes again.
            if deck.is_empty() {
                deck.extend_from_slice(faults);
                deck.shuffle(&mut self.random);
            }
            let Some(fault) = deck.pop() else { return };
            *self.done.entry(fault).or_default() += 1;
            workload.under(fault);
            self.make(fault).await;
            self.pause(300, 3000).await;
        }
    }

    async fn make(&mut self, fault: &str) {
        let osd = self.osd();
        let name = format!("osd.{osd}");
        let running = Arc::clone(&self.running);
        match fault {
            "osd killed" => running.signal(&name, "KILL"),
            "osd frozen" => {
                running.signal(&name, "STOP");
                self.pause(500, 6000).await;
                running.signal(&name, "CONT");
            }
            "osd restarted" => running.restart(osd),
            "two osds killed" => {
                running.signal(&name, "KILL");
                running.signal(&format!("osd.{}", (osd + 1) % OSDS), "KILL");
            }
            "all osds killed" => {
                for osd in 0..OSDS {
                    running.signal(&format!("osd.{osd}"), "KILL");
                }
            }
            "monitor killed" => {
                let mon = self.random.random_range(0..MONITORS);
                running.signal(&format!("mon.{mon}"), "KILL");
            }
            "osd out and in" => {
                running.change(Map::OsdOut(OsdOut { osds: vec![osd] })).await;
                self.pause(500, 4000).await;
                running.change(Map::OsdIn(OsdIn { osds: vec![osd] })).await;
            }
            "osd reweighted" => {
                let millionths = self.random.random_range(500_000..=1_000_000);
                running.change(Map::OsdReweight(OsdReweight { osd, millionths })).await;
            }
            "pool size changed" => {
                self.resize("2").await;
                self.pause(500, 4000).await;
                self.resize("3").await;
            }
            "bits flipped" => {
                if !running.flip_bits(self.liar, 4, &mut self.random) {
                    println!("chaos: {name} holds no data whose bits could be flipped");
                }
            }
            "devices filled" => self.fill().await,
            "disk replaced" => self.replace(self.liar).await,
            other => self.cut(other, osd).await,
        }
    }

    /// Faults of the network.
    async fn cut(&mut self, fault: &str, host: u32) {
        let running = Arc::clone(&self.running);
        let network = running.network.as_ref().unwrap();
        match fault {
            "host cut off" => {
                network.cable(host, false);
                self.pause(500, 6000).await;
                network.cable(host, true);
            }
            "one way cut" => {
                let to = (host + self.random.random_range(1..OSDS)) % OSDS;
                network.one_way(host, to, false);
                self.pause(500, 6000).await;
                network.one_way(host, to, true);
            }
            "cable thin" => {
                let (kbit, queue_ms) = (self.random.random_range(500..8000), self.random.random_range(20..400));
                network.thin(host, Some((kbit, queue_ms)));
                self.pause(500, 6000).await;
                network.thin(host, None);
            }
            "cable loose" => {
                for _ in 0..8 {
                    network.cable(host, false);
                    self.pause(10, 200).await;
                    network.cable(host, true);
                    self.pause(10, 400).await;
                }
            }
            other => panic!("no fault is called {other}"),
        }
    }

    /// An OSD's disk dies, with all that is on it; an empty one takes its place.
    async fn replace(&mut self, osd: u32) {
        let (name, number) = (format!("osd.{osd}"), osd.to_string());
        let running = Arc::clone(&self.running);
        let good = |args: &[&str]| {
            let (good, said) = running.nacre(args);
            assert!(good, "nacre {}: {said}", args.join(" "));
        };
        self.running.signal(&name, "KILL");
        good(&["down", &name]);
        self.pause(100, 2000).await;
        // Refused while the map still has it up, or while too few others are.
        let began = Instant::now();
        loop {
            let (taken, said) = self.running.nacre(&["osd", "replace", &number, "--no-wait"]);
            if taken {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "nacre osd replace: {said}");
            self.pause(100, 300).await;
        }
        self.running.lose_disk(osd);
        good(&["restart", &name]);
    }

    async fn resize(&self, size: &str) {
        let set = PoolSet { pool: "data".into(), option: "size".into(), value: size.into() };
        self.running.change(Map::PoolSet(set)).await;
    }

    /// Writes until nothing more is taken, and takes it all away again.
    async fn fill(&mut self) {
        let hasty = self.running.client(Duration::from_secs(5)).await;
        let pool = hasty.pool("data").await.unwrap();
        let junk = Bytes::from(vec![7; 4 << 20]);
        let mut count = 0;
        loop {
            match pool.object(format!("junk-{count}")).write_full(junk.clone()).await {
                Ok(()) => count += 1,
                // Refused; or a copy found its device full before the map said so, and waits for room.
                Err(Error::Object { .. } | Error::TimedOut { .. }) => {
                    count += 1;
                    break;
                }
                Err(other) => panic!("filling: {other}"),
            }
            assert!(count < 1000, "nothing is ever full");
        }
        self.pause(100, 2000).await;
        let cluster = self.running.client(Duration::from_secs(60)).await;
        let pool = cluster.pool("data").await.unwrap();
        for at in 0..count {
            match pool.object(format!("junk-{at}")).remove().await {
                Ok(()) => {}
                // The last one may never have been taken.
                Err(Error::Object { .. }) if at + 1 == count => {}
                Err(other) => panic!("making room again: {other}"),
            }
        }
    }

    /// Takes back what would last.
    pub(crate) async fn heal(&mut self) {
        for osd in 0..OSDS {
            self.running.signal(&format!("osd.{osd}"), "CONT");
            self.running.change(Map::OsdReweight(OsdReweight { osd, millionths: 1_000_000 })).await;
        }
    }

    /// How often what happened.
    pub(crate) fn summary(&self) -> String {
        self.done.iter().map(|(what, times)| format!("{what} {times}")).collect::<Vec<_>>().join(", ")
    }
}
