//! Any bytes as an exported collection: it comes in whole, or the store is as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_store::{MemoryStore, ObjectStore, transfer};

fuzz_target!(|input: &[u8]| {
    // Half of the runs as they are, half with frames and checksums around, so that the inside is reached.
    let Some((first, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if first % 2 == 0 {
        bytes = [&b"NacreExp"[..], &1u32.to_le_bytes()].concat();
        for body in rest.split(|byte| *byte == 0xfe) {
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(crc32fast::hash(body).to_le_bytes());
            bytes.extend(body);
        }
    }
    let store = MemoryStore::new(64 << 20);
    let outcome = std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let store = &store;
        scope.spawn(move || {
            while finished.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                store.commit(16);
                std::thread::yield_now();
            }
        });
        let outcome = transfer::import(store, &mut bytes.as_slice());
        drop(done);
        outcome
    });
    store.commit(usize::MAX);
    if outcome.is_err() {
        for pg in store.collections().expect("the twin answers") {
            let marked = store.meta(pg, transfer::UNFINISHED).expect("the twin answers").is_some();
            assert!(marked, "a failed import left {pg} behind as if it were whole");
        }
    }
});
