//! Ten thousand epochs of the map: who comes late catches up, and a monitor stays small.

use std::time::Duration;

use nacre_maps::{ClusterMap, Increment};
use nacre_mon_api::v1;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{MapCommand, SettingSet};

use crate::cluster::{Cluster, report, until};

const EPOCHS: u64 = 10_000;
/// What of a monitor may be in memory, the pages of the binary that it shares with all daemons included, KiB.
const MOST: u64 = 64 << 10;

/// Follows the map from `have` until `newest`; gives the map and how many full ones it took.
async fn follow(client: &nacre_mon_api::MonClient, mut map: ClusterMap, newest: u64) -> (ClusterMap, u32) {
    let mut updates = client.subscribe(map.epoch.0).await.unwrap();
    let mut full = 0;
    while map.epoch.0 < newest {
        match updates.message().await.unwrap().unwrap().update.unwrap() {
            v1::map_update::Update::Full(bytes) => {
                full += 1;
                map = ClusterMap::decode(&bytes).unwrap();
            }
            v1::map_update::Update::Increment(bytes) => {
                map = map.apply(&Increment::decode(&bytes).unwrap()).unwrap();
            }
        }
    }
    (map, full)
}

#[test]
fn ten_thousand_epochs_fit_and_who_comes_late_catches_up() {
    let cluster = Cluster::up();
    let first = ClusterMap::decode(&cluster.status().map).unwrap();
    // given many writers, each with a setting of its own so that each command is an epoch
    cluster.runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..16u64 {
            let client = cluster.client(Duration::from_secs(60));
            writers.spawn(async move {
                for round in 0..EPOCHS / 16 {
                    let set = SettingSet {
                        scope: format!("osd.{writer}"),
                        name: "osd.memory".into(),
                        value: format!("{}MiB", 256 + round % 2),
                    };
                    let verb = v1::command::Verb::Map(MapCommand { verb: Some(Map::SettingSet(set)) });
                    client.execute(verb, false).await.unwrap();
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    });
    let now = cluster.status();
    assert!(now.epoch >= first.epoch.0 + EPOCHS, "epoch {}", now.epoch);
    // then a newcomer, one that was there at the beginning and one that missed a little all see the same map
    let client = cluster.client(Duration::from_secs(20));
    cluster.runtime.block_on(async {
        let empty = ClusterMap::empty(first.fsid);
        let (newcomer, full) = follow(&client, empty, now.epoch).await;
        assert_eq!((newcomer.encode(), full), (now.map.to_vec(), 1));
        let (early, full) = follow(&client, first, now.epoch).await;
        assert!(early == newcomer && full <= 1);
    });
    // and no monitor has grown
    for mon in 0..3 {
        until("the monitor has all of it", Duration::from_secs(30), || {
            let own = cluster.runtime.block_on(cluster.only(mon, Duration::from_secs(5)).status(true)).unwrap();
            own.epoch == now.epoch
        });
        let pid = cluster.pid(u64::from(mon)).unwrap().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let (own, all) = (kib("RssAnon:"), kib("VmRSS:"));
        report(&format!("mon.{mon} holds {} MiB, {} of them its own", all >> 10, own >> 10));
        assert!(all <= MOST, "mon.{mon}: {all} KiB");
    }
}
