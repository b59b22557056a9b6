//! What breaks the cluster: one fault after the other, chosen by a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{OsdIn, OsdOut, OsdReweight};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{MONITORS, OSDS, Running};

/// See the module.
pub(crate) struct Nemesis {
    running: Arc<Running>,
    random: StdRng,
    done: BTreeMap<&'static str, u32>,
}

const FAULTS: [&str; 9] = [
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

impl Nemesis {
    /// One that is calm yet.
    pub(crate) fn new(running: Arc<Running>, seed: u64) -> Nemesis {
        Nemesis { running, random: StdRng::seed_from_u64(seed), done: BTreeMap::new() }
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let length = self.random.random_range(least..most);
        tokio::time::sleep(Duration::from_millis(length)).await;
    }

    fn osd(&mut self) -> u32 {
        self.random.random_range(0..OSDS)
    }

    /// Breaks one thing after the other.
    pub(crate) async fn rage(&mut self, length: Duration) {
        let until = Instant::now() + length;
        while Instant::now() < until {
            let fault = FAULTS[self.random.random_range(0..FAULTS.len())];
            *self.done.entry(fault).or_default() += 1;
            let osd = self.osd();
            let name = format!("osd.{osd}");
            match fault {
                "osd killed" => self.running.signal(&name, "KILL"),
                "osd frozen" => {
                    self.running.signal(&name, "STOP");
                    self.pause(500, 6000).await;
                    self.running.signal(&name, "CONT");
                }
                "osd restarted" => drop(self.running.nacre(&["restart", &name])),
                "two osds killed" => {
                    self.running.signal(&name, "KILL");
                    self.running.signal(&format!("osd.{}", (osd + 1) % OSDS), "KILL");
                }
                "all osds killed" => {
                    for osd in 0..OSDS {
                        self.running.signal(&format!("osd.{osd}"), "KILL");
                    }
                }
                "monitor killed" => {
                    let mon = self.random.random_range(0..MONITORS);
                    self.running.signal(&format!("mon.{mon}"), "KILL");
                }
                "osd out and in" => {
                    self.running.change(Map::OsdOut(OsdOut { osds: vec![osd] })).await;
                    self.pause(500, 4000).await;
                    self.running.change(Map::OsdIn(OsdIn { osds: vec![osd] })).await;
                }
                _ => {
                    let millionths = self.random.random_range(500_000..=1_000_000);
                    self.running.change(Map::OsdReweight(OsdReweight { osd, millionths })).await;
                }
            }
            self.pause(300, 3000).await;
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
