//! OSDs with several shards: groups that split cross from one to another, and nobody notices.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nacre_client::Pool;
use serde_json::Value;

use super::Running;
use super::tools::moment;

const OBJECTS: u32 = 40;

/// Appends to objects in turn until told to end; how often to each.
async fn appended(pool: Pool, end: Arc<AtomicBool>) -> Vec<u64> {
    let mut counts = vec![0; OBJECTS as usize];
    while !end.load(Ordering::Relaxed) {
        for (n, count) in counts.iter_mut().enumerate() {
            pool.object(format!("object-{n}")).append(Bytes::from(format!("{count:07};"))).await.unwrap();
            *count += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn groups_split_over_the_shards_of_osds_while_clients_write_and_an_osd_is_away() {
    // given OSDs with one, two and three shards, and a pool of a single group
    let running = Running::of(36, 3, "[[osds]]\nshards = 1\n[[osds]]\nshards = 3\n[[osds]]\nshards = 2\n");
    let good = |args: &[&str]| running.good(args);
    good(&["pool", "create", "few", "--pg-num", "1", "--application", "test"]);
    let cluster = running.client().await;
    let pool = cluster.pool("few").await.unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(appended(pool.clone(), Arc::clone(&end)));
    // when it is split and split again under a writer, so that most groups come to be in another shard than their parents
    for pg_num in ["2", "4", "8"] {
        tokio::task::block_in_place(|| good(&["pool", "set", "few", "pg_num", pg_num]));
    }
    // and once more while an OSD is frozen, which then starts anew many maps later
    let pid =
        |osd: u32| std::fs::read_to_string(running.0.path().join(format!("var/pearl/run/osd.{osd}.pid"))).unwrap();
    let before: Vec<String> = (0..3).map(pid).collect();
    let threads = std::fs::read_dir(format!("/proc/{}/task", before[1].trim())).unwrap();
    let named = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    let mut shards: Vec<String> =
        named.map(|name| name.trim().to_owned()).filter(|n| n.starts_with("shard-")).collect();
    shards.sort();
    assert_eq!(shards, ["shard-1", "shard-2"], "the first is with the connections");
    let frozen = before[1].trim();
    assert!(Command::new("kill").args(["-STOP", frozen]).status().unwrap().success());
    tokio::task::block_in_place(|| {
        good(&["pool", "set", "few", "pg_num", "16"]);
        for n in 0..4 {
            good(&["pool", "create", &format!("other-{n}"), "--pg-num", "1", "--application", "test"]);
        }
    });
    assert!(Command::new("kill").args(["-9", frozen]).status().unwrap().success());
    tokio::task::block_in_place(|| {
        while pid(1) == before[1] {
            moment(Duration::from_millis(20));
        }
        running.wait_until_clean();
    });
    end.store(true, Ordering::Relaxed);
    let counts = writer.await.unwrap();
    // then each append is there once and in order
    for (n, count) in counts.into_iter().enumerate() {
        let object = pool.object(format!("object-{n}"));
        let size = object.stat().await.unwrap().size;
        let found = object.read(0, size).await.unwrap();
        let expected: String = (0..count).map(|at| format!("{at:07};")).collect();
        assert!(found == expected.as_bytes(), "object-{n}: {} of {} bytes", found.len(), expected.len());
    }
    // and groups are all where they belong, the copies alike, and no OSD but the frozen one started anew
    let rows: Vec<Value> = serde_json::from_str(&good(&["pg", "ls", "--json"])).unwrap();
    let number = pool.id().0;
    let few: Vec<&Value> =
        rows.iter().filter(|row| row["pg"].as_str().unwrap().starts_with(&format!("{number}."))).collect();
    assert_eq!(few.len(), 16, "{rows:?}");
    assert!(few.iter().all(|row| row["state"] == "active+clean"), "{few:?}");
    let objects: u64 = few.iter().map(|row| row["objects"].as_u64().unwrap()).sum();
    assert_eq!(objects, u64::from(OBJECTS));
    assert_eq!((pid(0), pid(2)), (before[0].clone(), before[2].clone()));
    // and what an operator sees of operations is that of all shards
    let ops: Value = serde_json::from_str(&good(&["daemon", "osd.1", "ops", "--json"])).unwrap();
    let ages: Vec<u64> = ops["recent"].as_array().unwrap().iter().map(|op| op["age_us"].as_u64().unwrap()).collect();
    assert!(ages.is_sorted_by(|older, newer| older >= newer), "{ages:?}");
}
