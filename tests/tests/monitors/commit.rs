//! What a command costs a quorum: flushes are judged, times are told.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, note, report, until};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a monitor has counted.
struct Counted {
    syncs: u64,
    entries: u64,
    term: u64,
    commits: (f64, f64),
}

fn counted(cluster: &Cluster, mon: usize) -> Counted {
    let perf: Value =
        serde_json::from_str(&cluster.nacre(&["daemon", &format!("mon.{mon}"), "perf", "--json"])).unwrap();
    let count =
        |name: &str| perf[format!("nacre_mon_{name}")].as_f64().unwrap_or_else(|| panic!("{name}: {perf}")) as u64;
    let commits = &perf["nacre_mon_commit_seconds"];
    Counted {
        syncs: count("store_syncs_total"),
        entries: count("log_last_entry"),
        term: count("term"),
        commits: (commits["count"].as_f64().unwrap(), commits["sum"].as_f64().unwrap()),
    }
}

/// What each monitor has counted once all have the same log.
fn all_counted(cluster: &Cluster) -> Vec<Counted> {
    let mut all = Vec::new();
    until("all have the same log", PATIENCE, || {
        all = (0..3).map(|mon| counted(cluster, mon)).collect();
        all.iter().all(|one| one.entries == all[0].entries)
    });
    all
}

#[test]
fn a_command_costs_each_monitor_one_flush() {
    let cluster = Cluster::up();
    let client = cluster.client(PATIENCE);
    cluster.runtime.block_on(client.execute(note("first".into()), false)).unwrap();
    let spent = |what: &str, before: &[Counted], mut took: Vec<Duration>| {
        let after = all_counted(&cluster);
        let mut flushes = Vec::new();
        for (mon, (before, after)) in before.iter().zip(&after).enumerate() {
            let (syncs, entries) = (after.syncs - before.syncs, after.entries - before.entries);
            // An election saves ballots, and a snapshot is made every two thousand entries; nothing else is flushed.
            let most = entries + 4 * (after.term - before.term) + 4;
            assert!(syncs <= most, "mon.{mon} made {syncs} flushes for {entries} entries of {what}");
            flushes.push(format!("{:.2}", syncs as f64 / entries as f64));
        }
        // Whoever leads has observed them all, unless that changed meanwhile.
        let commits = after
            .iter()
            .zip(before)
            .map(|(after, before)| (after.commits.0 - before.commits.0, after.commits.1 - before.commits.1));
        let (count, sum) = commits.fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        report(&format!(
            "{what}: {} commands, as the client sees it median {:?}, 99 of 100 within {:?}, worst {:?}; as the leader sees \
             it {:.2} ms on average; flushes for each entry {}",
            took.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            sum / count * 1e3,
            flushes.join(", "),
        ));
        after
    };

    let before = all_counted(&cluster);
    let took = cluster.runtime.block_on(async {
        let mut took = Vec::new();
        for number in 0..1000 {
            let began = Instant::now();
            client.execute(note(format!("note {number}")), false).await.unwrap();
            took.push(began.elapsed());
        }
        took
    });
    let before = spent("one after the other", &before, took);
    let took = cluster.runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..16 {
            let client = cluster.client(PATIENCE);
            writers.spawn(async move {
                let mut took = Vec::new();
                for number in 0..62 {
                    let began = Instant::now();
                    client.execute(note(format!("writer {writer} note {number}")), false).await.unwrap();
                    took.push(began.elapsed());
                }
                took
            });
        }
        writers.join_all().await.concat()
    });
    spent("sixteen at a time", &before, took);
}
