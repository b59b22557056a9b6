//! Chaos: a cluster of real processes, clients whose every call is recorded, and a nemesis that breaks daemons, networks
//! and disks at random from a seed. Judged afterwards, with the checker the simulator uses:
//!
//! - every object's history is linearizable, so no acknowledged write is lost and none is done twice;
//! - all pgs are clean again within a bound, and a deep scrub of each finds nothing (after a repair, where disks lied);
//! - no daemon panicked, and none wrote an error that its faults do not explain.
//!
//! `NACRE_CHAOS_SECONDS` is how long faults go on in each test, `NACRE_CHAOS_SEED` which ones; the seed is printed first.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic or what is printed is the report")]

mod cluster;
mod nemesis;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use nacre_tests::netns::Network;

use crate::cluster::Running;
use crate::nemesis::{DAEMONS, DISKS, NETWORK, Nemesis};
use crate::workload::Workload;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What a test does to its cluster.
struct Chaos {
    network: Option<Network>,
    mib: u64,
    faults: &'static [&'static str],
    /// Errors in logs that these faults explain.
    expected: &'static [&'static str],
    repair: bool,
}

impl Chaos {
    async fn run(self) {
        let seconds = number("NACRE_CHAOS_SECONDS", 100);
        let seed = number("NACRE_CHAOS_SEED", u64::from(std::process::id()));
        println!("chaos: seed {seed}, {seconds} s of faults (again: NACRE_CHAOS_SEED={seed})");
        let running = Arc::new(Running::start(self.network, self.mib));
        running.wait_until_clean(Duration::from_secs(60)).await;
        // given clients at work
        let workload = Workload::start(&running, seed).await;
        // when things break for a while
        let mut nemesis = Nemesis::new(Arc::clone(&running), seed);
        nemesis.rage(Duration::from_secs(seconds), self.faults, &workload).await;
        nemesis.heal().await;
        // then all becomes clean, also under way
        let healed = running.wait_until_clean(Duration::from_secs(180)).await;
        workload.under("none");
        let told = workload.end().await;
        println!("chaos: faults {}", nemesis.summary());
        println!("chaos: clean {:.1} s after the last fault; {}", healed.as_secs_f64(), told.summary());
        assert!(told.calls > 500, "the clients got hardly anything done: {}", told.summary());
        // and every history holds
        let broken = told.broken();
        assert!(broken.is_empty(), "seed {seed}: {} objects\n{}", broken.len(), broken.join("\n"));
        // and all copies are alike
        if self.repair {
            running.repair_everything(Duration::from_secs(180)).await;
        }
        running.scrub_everything(Duration::from_secs(180)).await;
        let complaints = running.complaints(self.expected);
        assert!(complaints.is_empty(), "seed {seed}:\n{}", complaints.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens_to_the_daemons() {
    Chaos { network: None, mib: 512, faults: DAEMONS, expected: &[], repair: false }.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens_to_the_network() {
    let network = match Network::new(cluster::OSDS).and_then(|network| network.join().map(|()| network)) {
        Ok(network) => network,
        Err(why) => {
            println!("NOT RUN: chaos of the network: {why}");
            return;
        }
    };
    Chaos { network: Some(network), mib: 512, faults: NETWORK, expected: &[], repair: false }.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens_to_the_disks() {
    let expected = &["a read failed", "this group waits for room"];
    Chaos { network: None, mib: 256, faults: DISKS, expected, repair: true }.run().await;
}
