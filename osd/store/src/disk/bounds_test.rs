//! What the store may take and what it costs: memory of the whole process, blocks of clones, space given back to the
//! disk, thresholds, a raw block device.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SnapId};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::suite::{IDENTITY, options};
use crate::testkit::{dump, ignore, oid, pg};
use crate::{DiskStore, FullRatios, Fullness, ObjectStore, StoreConfig};

fn write(name: &str, offset: u64, data: Vec<u8>) -> TxnOp {
    TxnOp::Write { oid: oid(name, 0), offset, data: data.into(), hint: WriteHint::default() }
}

fn wait(store: &DiskStore, ops: Vec<TxnOp>) -> Result<(), StoreError> {
    let (tell, told) = mpsc::sync_channel(1);
    store.submit(Transaction { pg: pg(0), ops }, Box::new(move |done| drop(tell.send(done))))?;
    told.recv().unwrap()
}

/// The allocator of the binary `nacre`: how near the process keeps to the bound is its doing as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// The child of the memory test: every kind of load, and the most memory the process had beyond what it began with.
#[test]
fn child_that_works_within_a_bound() {
    let Ok(path) = std::env::var("NACRE_STORE_BOUND") else { return };
    let (path, memory) = path.split_once('=').unwrap();
    let (path, memory) = (Path::new(path), memory.parse::<u64>().unwrap() << 20);
    let before = rss();
    DiskStore::format(path, IDENTITY, &options(768 << 20, 128 << 20)).unwrap();
    let config = StoreConfig { memory, ..StoreConfig::default() };
    let mut store = DiskStore::open(path, None, &config).unwrap();
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    let mut rng = StdRng::seed_from_u64(8);
    let (mut most, mut held) = (0, 0);
    for round in 0..48_000u64 {
        let name = format!("o{}", rng.random_range(0..120));
        let place = rng.random_range(0..1024) * 4096;
        let op = match round / 8_000 {
            // Reads alone: what they bring into memory takes the place of what writes left there.
            4.. => {
                let _ = store.read(pg(0), &oid(&name, 0), place, 4096).unwrap();
                if round % 50 == 0 {
                    most = most.max(rss());
                    held = held.max(store.memory().0);
                }
                continue;
            }
            0 if round % 8 == 0 => write(&name, place & !0xfffff, vec![round as u8; 1 << 20]),
            1 => {
                let entry = |_| (Bytes::from(rng.random::<u64>().to_string()), Bytes::from(vec![1; 300]));
                TxnOp::OmapSet { oid: oid(&name, 0), entries: (0..8).map(entry).collect() }
            }
            _ => write(&name, place, vec![round as u8; 4096]),
        };
        store.submit(Transaction { pg: pg(0), ops: vec![op] }, ignore()).unwrap();
        if round % 3 == 0 {
            let _ = store.read(pg(0), &oid(&name, 0), place & !0xffff, 65_536).unwrap();
        }
        if round % 50 == 0 {
            most = most.max(rss());
            held = held.max(store.memory().0);
        }
        if round == 24_000 {
            // Opening again, with a journal to replay, is held to it too.
            drop(store);
            store = DiskStore::open(path, None, &config).unwrap();
        }
    }
    println!("\nmost {} {}", (most - before) >> 20, held >> 20);
}

/// The child of the test with snapshots: objects whose blocks lie scattered, and clones of them that come and go, so that
/// nearly all memory is metadata, and much of it changes between two checkpoints.
#[test]
fn child_that_clones_within_a_bound() {
    const OBJECTS: u64 = 64;
    const SNAPS: u64 = 24;
    let Ok(path) = std::env::var("NACRE_STORE_CLONES") else { return };
    let (path, memory) = path.split_once('=').unwrap();
    let (path, memory) = (Path::new(path), memory.parse::<u64>().unwrap() << 20);
    let before = rss();
    DiskStore::format(path, IDENTITY, &options(1 << 30, 128 << 20)).unwrap();
    let store = DiskStore::open(path, None, &StoreConfig { memory, ..StoreConfig::default() }).unwrap();
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    let submit = |ops| store.submit(Transaction { pg: pg(0), ops }, ignore()).unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    for number in 0..OBJECTS {
        // Every second block of 4 MiB: each is an extent of its own.
        for from in (0..1024).step_by(64) {
            let at = |block: u64| write(&format!("o{number}"), block * 4096, vec![number as u8; 4096]);
            submit((from..from + 64).step_by(2).map(at).collect());
        }
    }
    let (mut most, mut held, mut taken) = (0, 0, [0; OBJECTS as usize]);
    let mut look = || {
        most = most.max(rss());
        held = held.max(store.memory().0);
    };
    // All of them cloned at once: hardly a byte of journal, and all metadata changed.
    for snap in 1..=SNAPS {
        for number in 0..OBJECTS {
            let from = oid(&format!("o{number}"), 0);
            let to = ObjectId { snap: SnapId(snap), ..from.clone() };
            submit(vec![TxnOp::Clone { from, to }]);
        }
        look();
    }
    taken.fill(SNAPS);
    for round in 0..60_000u64 {
        let number = rng.random_range(0..OBJECTS);
        let name = format!("o{number}");
        let place = rng.random_range(0..1024) * 4096;
        match rng.random_range(0..20) {
            0 => {
                let snaps = &mut taken[number as usize];
                *snaps += 1;
                let snap = |snap| ObjectId { snap: SnapId(snap), ..oid(&name, 0) };
                let mut ops = vec![TxnOp::Clone { from: oid(&name, 0), to: snap(*snaps) }];
                if *snaps > SNAPS {
                    ops.push(TxnOp::Remove { oid: snap(*snaps - SNAPS) });
                }
                submit(ops);
            }
            1..=5 => drop(store.read(pg(0), &oid(&name, 0), place, 4096).unwrap()),
            _ => drop(submit(vec![write(&name, place, vec![round as u8; 4096])])),
        }
        if round % 50 == 0 {
            look();
        }
    }
    println!("\nmost {} {}", (most - before) >> 20, held >> 20);
}

/// Most MiB of a child's process, and most it knew of.
fn memory_of(child: &str, variable: &str, memory: u64) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("disk::bounds_tests::{child}"), "--nocapture"])
        .env(variable, format!("{}={memory}", folder.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("most "));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&child.stderr)));
    println!("bound {memory} MiB: most MiB of the process, and known to the store: {line}");
    let (most, held) = line.split_once(' ').unwrap();
    (most.parse().unwrap(), held.parse().unwrap())
}

#[test]
fn memory_of_snapshots_follows_the_bound_within_a_fifth() {
    for memory in [128, 256] {
        let (most, held) = memory_of("child_that_clones_within_a_bound", "NACRE_STORE_CLONES", memory);
        assert!(held <= memory, "{held} MiB known of {memory}");
        assert!(most <= memory * 6 / 5, "{most} MiB resident of {memory}");
    }
}

#[test]
fn memory_of_the_process_follows_the_bound_within_a_fifth() {
    let mut seen = Vec::new();
    for memory in [128, 256] {
        let (most, held) = memory_of("child_that_works_within_a_bound", "NACRE_STORE_BOUND", memory);
        seen.push((memory, most, held));
    }
    for (memory, most, held) in &seen {
        assert!(held <= memory, "{held} MiB known of {memory}");
        assert!(*most <= memory * 6 / 5, "{most} MiB resident of {memory}");
    }
    // It is used as well: more memory, more cache.
    assert!(seen[1].1 > 128 * 6 / 5, "{seen:?}");
}

#[test]
fn a_clone_costs_metadata_however_large_the_object() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(256 << 20, 32 << 20)).unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    for part in 0..16 {
        wait(&store, vec![write("large", part * (4 << 20), vec![part as u8; 4 << 20])]).unwrap();
    }
    store.checkpoint().unwrap();
    let (used, wrote) = (store.usage().used, store.counters().block_bytes.load(Ordering::Relaxed));
    let journal = store.counters().journal_bytes.load(Ordering::Relaxed);
    let snap = |snap| ObjectId { snap: SnapId(snap), ..oid("large", 0) };
    for number in 1..=10 {
        wait(&store, vec![TxnOp::Clone { from: oid("large", 0), to: snap(number) }]).unwrap();
    }
    store.checkpoint().unwrap();
    assert_eq!(store.usage().used, used, "64 MiB, eleven times, once on the disk");
    assert_eq!(store.counters().block_bytes.load(Ordering::Relaxed), wrote);
    assert!(store.counters().journal_bytes.load(Ordering::Relaxed) - journal < 10 * 4096);
    // What changes costs its own blocks, and the snapshots keep theirs.
    wait(&store, vec![write("large", 4096, vec![99; 4096])]).unwrap();
    assert_eq!(store.usage().used, used + 4096);
    assert!(store.read_flat(pg(0), &snap(3), 4096, 4096).unwrap().iter().all(|byte| *byte == 0));
    for number in 1..=10 {
        wait(&store, vec![TxnOp::Remove { oid: snap(number) }]).unwrap();
    }
    assert_eq!(store.usage().used, used);
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}

#[test]
fn freed_space_goes_back_to_the_disk_after_the_checkpoint_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    // So large that what is freed does not ask for a checkpoint by itself.
    DiskStore::format(folder.path(), IDENTITY, &options(320 << 20, 4 << 20)).unwrap();
    let config = StoreConfig { discard: Some(true), ..StoreConfig::default() };
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    let held = || std::fs::metadata(folder.path().join("block")).unwrap().blocks() * 512;
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    for number in 0..8 {
        wait(&store, vec![write(&format!("o{number}"), 0, vec![1; 4 << 20])]).unwrap();
    }
    store.checkpoint().unwrap();
    let before = held();
    for number in 0..7 {
        wait(&store, vec![TxnOp::Remove { oid: oid(&format!("o{number}"), 0) }]).unwrap();
    }
    assert_eq!(held(), before);
    store.checkpoint().unwrap();
    assert!(before - held() >= 28 << 20, "{} of 28 MiB came back", (before - held()) >> 20);
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    drop(store);
    // A file keeps its space unless told otherwise: what was reserved stays reserved.
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    let before = held();
    wait(&store, vec![TxnOp::Remove { oid: oid("o7", 0) }]).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(held(), before);
}

#[test]
fn thresholds_are_crossed_one_after_the_other_and_back() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(65 << 20, 4 << 20)).unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    let ratios = FullRatios::default();
    let mut seen = vec![(Fullness::Ok, 0.0)];
    let mut count = 0;
    while wait(&store, vec![write(&format!("o{count}"), 0, vec![1; 256 << 10])]).is_ok() {
        count += 1;
        let usage = store.usage();
        if usage.fullness(&ratios) != seen[seen.len() - 1].0 {
            seen.push((usage.fullness(&ratios), usage.ratio()));
        }
    }
    let names: Vec<_> = seen.iter().map(|(fullness, _)| *fullness).collect();
    assert_eq!(names, [Fullness::Ok, Fullness::Near, Fullness::Backfill, Fullness::Full]);
    for ((_, ratio), bound) in seen.iter().zip([0.0, 0.85, 0.90, 0.95]) {
        assert!(*ratio >= bound && *ratio < bound + 0.01, "{seen:?}");
    }
    for number in 0..count / 4 {
        wait(&store, vec![TxnOp::Remove { oid: oid(&format!("o{number}"), 0) }]).unwrap();
    }
    assert_eq!(store.usage().fullness(&ratios), Fullness::Ok);
}

/// A block device made of a file, gone at the end.
struct Loop(String);

impl Loop {
    /// `None` where we may not have one: then there is no raw device to test with.
    fn new(file: &Path, sector: u32) -> Option<Loop> {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(file)
            .output()
            .ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then_some(Loop(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_raw_block_device_holds_a_store_with_small_and_with_large_sectors() {
    for sector in [512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, len: u64| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(len).unwrap();
            path
        };
        let (data, log) = (file("data.img", 48 << 20), file("log.img", 8 << 20));
        let (Some(data), Some(log)) = (Loop::new(&data, sector), Loop::new(&log, sector)) else {
            println!("no loop device with sectors of {sector} bytes may be had here");
            continue;
        };
        let path = folder.path().join("store");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink(&data.0, path.join("block")).unwrap();
        std::os::unix::fs::symlink(&log.0, path.join("journal")).unwrap();
        let info = DiskStore::format(&path, IDENTITY, &options(0, 1 << 20)).unwrap();
        assert_eq!((info.size, info.journal), (48 << 20, 8 << 20), "all of the device");
        let config = StoreConfig::default();
        let store = DiskStore::open(&path, Some(IDENTITY), &config).unwrap();
        wait(&store, vec![TxnOp::CreateCollection]).unwrap();
        let mut rng = StdRng::seed_from_u64(sector.into());
        for number in 0..600u64 {
            let len = if number % 20 == 0 { 300_000 } else { rng.random_range(1..9000) };
            let op = write(&format!("o{}", number % 40), rng.random_range(0..100_000), vec![number as u8; len]);
            store.submit(Transaction { pg: pg(0), ops: vec![op] }, ignore()).unwrap();
        }
        store.sync().unwrap();
        // Another name of the same device does not lead around the lock.
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        for (name, device) in [("block", &data.0), ("journal", &log.0)] {
            std::os::unix::fs::symlink(device, other.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(path.join("kv"), other.join("kv")).unwrap();
        assert!(matches!(DiskStore::open(&other, None, &config).map(drop), Err(StoreError::Locked { .. })));
        let want = dump(&store).unwrap();
        drop(store);
        let store = DiskStore::open(&path, Some(IDENTITY), &config).unwrap();
        assert_eq!(dump(&store).unwrap(), want, "sectors of {sector}");
        assert_eq!(store.check(true).unwrap().problems, vec![]);
        // A block device is told what is free: the file below it shrinks.
        let held = || std::fs::metadata(folder.path().join("data.img")).unwrap().blocks() * 512;
        let before = held();
        for number in 0..40 {
            wait(&store, vec![TxnOp::Remove { oid: oid(&format!("o{number}"), 0) }]).unwrap();
        }
        store.checkpoint().unwrap();
        assert!(held() < before / 4, "{} of {before} bytes still held", held());
        drop(store);
        assert!(matches!(DiskStore::format(&path, IDENTITY, &options(0, 1 << 20)), Err(StoreError::Format { .. })));
    }
}

#[test]
fn a_store_grows_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    // An end in the middle of a piece of the bitmap.
    DiskStore::format(folder.path(), IDENTITY, &options((20 << 20) + 40_960, 4 << 20)).unwrap();
    let config = StoreConfig::default();
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    wait(&store, vec![TxnOp::CreateCollection]).unwrap();
    let mut count = 0;
    while wait(&store, vec![write(&format!("o{count}"), 0, vec![count as u8; 200_000])]).is_ok() {
        count += 1;
    }
    let want = dump(&store).unwrap();
    assert!(matches!(DiskStore::grow(folder.path(), 64 << 20), Err(StoreError::Locked { .. })));
    store.close().unwrap();
    let info = DiskStore::grow(folder.path(), 64 << 20).unwrap();
    assert_eq!((info.size, info.identity), (64 << 20, IDENTITY));
    assert!(matches!(DiskStore::grow(folder.path(), 64 << 20), Err(StoreError::Format { .. })));
    let store = DiskStore::open(folder.path(), Some(IDENTITY), &config).unwrap();
    assert_eq!(dump(&store).unwrap(), want);
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    assert_eq!(store.usage().total, (64 << 20) - superblock::RESERVED * BLOCK);
    let before = count;
    while wait(&store, vec![write(&format!("o{count}"), 0, vec![count as u8; 200_000])]).is_ok() {
        count += 1;
    }
    assert!(count > before * 2, "{before}, then {count}");
    assert!(store.usage().ratio() > 0.98, "{:?}", store.usage());
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}
