//! The bench itself, on the in-memory twin: what it counts, names and leaves behind. No figure is judged here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::MemoryStore;

/// Runs with a thread that plays the committer.
fn bench(options: &Options) -> (Result<Vec<Row>, BenchError>, MemoryStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new(1 << 30);
    let (stop, flushes) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Counted before those who wait are told, who may look at once.
                if store.pending() > 0 {
                    flushes.fetch_add(1, Ordering::SeqCst);
                    store.commit(64);
                }
                std::thread::yield_now();
            }
        });
        let result = run(&store, folder.path(), options, &|| flushes.load(Ordering::SeqCst), |_| {});
        stop.store(true, Ordering::Relaxed);
        result
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the scratch file is gone");
    (result, store)
}

#[test]
fn every_workload_does_something_and_names_its_figures_as_documented() {
    // However short the time: a busy machine may leave none of it.
    let options = Options { time: Duration::ZERO, size: 16 << 20, only: None };
    let (rows, store) = bench(&options);
    let rows = rows.unwrap();
    assert_eq!(rows.iter().map(|row| row.workload).collect::<Vec<_>>(), load::names());
    for row in &rows {
        assert!(row.iops > 0.0 && row.mib_s > 0.0 && row.device_limit > 0.0 && row.cpu_us_per_op > 0.0, "{row:?}");
        // A read may see the end of a checkpoint for the writes before it.
        let reads = row.workload.starts_with("read") || row.workload == "omap-list";
        assert!(reads || row.flushes_per_op > 0.0, "{row:?}");
    }
    let json = serde_json::to_value(&rows[0]).unwrap();
    let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut wanted = vec![
        "workload",
        "iops",
        "mib_s",
        "cpu_us_per_op",
        "flushes_per_op",
        "write_amplification",
        "rss_mib",
        "device_limit",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert!(store.collections().unwrap().is_empty(), "what the bench made it took away");
}

#[test]
fn a_workload_that_does_not_exist_is_named_with_those_that_do() {
    let (result, _) = bench(&Options { only: Some("raed".into()), ..Options::default() });
    let text = result.unwrap_err().to_string();
    assert!(text.contains("raed") && text.contains("read-4k"), "{text}");
}
