//! The allocator against a plain set of blocks, and its pace on a nearly full store.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

proptest! {
    #[test]
    fn blocks_are_given_once_and_come_back_after_a_checkpoint(
        steps in proptest::collection::vec((0..5u8, 1..5000u64, proptest::option::of(0..10000u64)), 1..60)
    ) {
        let mut alloc = Allocator::new(10_000, 256);
        let mut held: Vec<Run> = Vec::new();
        let mut used = BTreeSet::new();
        let (mut waiting, mut frozen) = (BTreeSet::new(), BTreeSet::new());
        for (kind, want, hint) in steps {
            match kind {
                0..=1 => {
                    let want = if kind == 0 { want } else { want % 20 + 1 };
                    let free = 10_000 - 256 - (used.len() + waiting.len() + frozen.len()) as u64;
                    let runs = alloc.allocate(want, hint);
                    prop_assert_eq!(runs.is_some(), want <= free);
                    for run in runs.into_iter().flatten() {
                        for block in run.0..run.0 + run.1 {
                            prop_assert!((256..10_000).contains(&block) && !waiting.contains(&block) && !frozen.contains(&block));
                            prop_assert!(used.insert(block));
                        }
                        held.push(run);
                    }
                }
                2 if !held.is_empty() => {
                    let run = held.swap_remove((want % held.len() as u64) as usize);
                    alloc.release(run);
                    for block in run.0..run.0 + run.1 {
                        used.remove(&block);
                        waiting.insert(block);
                    }
                }
                3 => {
                    let chunks = alloc.freeze();
                    frozen.append(&mut waiting);
                    for (chunk, words) in chunks {
                        for block in (chunk * CHUNK).max(256)..((chunk + 1) * CHUNK).min(10_000) {
                            let within = (block % CHUNK) as usize;
                            prop_assert_eq!(words[within / 64] >> (within % 64) & 1 == 1, used.contains(&block));
                        }
                    }
                }
                4 => {
                    alloc.thaw();
                    frozen.clear();
                }
                _ => {}
            }
            prop_assert_eq!(alloc.used(), used.len() as u64);
            prop_assert_eq!(alloc.waiting(), (waiting.len() + frozen.len()) as u64);
            prop_assert_eq!(alloc.free(), 10_000 - 256 - (used.len() + waiting.len() + frozen.len()) as u64);
        }
    }
}

#[test]
fn a_run_of_any_length_is_found_where_there_is_one() {
    for len in [1u64, 2, 63, 64, 65, 127, 128, 129, 1000] {
        for at in [300u64, 319, 320, 321, 500, 2000] {
            let mut alloc = Allocator::new(CHUNK, 256);
            assert!(alloc.take_exact((256, at - 256)));
            assert!(alloc.take_exact((at + len, CHUNK - at - len)));
            assert_eq!(alloc.allocate(len, None), Some(vec![(at, len)]), "{len} at {at}");
            assert_eq!(alloc.allocate(1, None), None);
        }
    }
}

#[test]
fn sequential_growth_stays_in_one_run() {
    let mut alloc = Allocator::new(1 << 16, 256);
    let mut end = alloc.allocate(1024, None).map(|runs| runs[0].0 + 1024).unwrap();
    for _ in 0..20 {
        let runs = alloc.allocate(16, Some(end)).unwrap();
        assert_eq!(runs, vec![(end, 16)]);
        end += 16;
    }
}

/// Words looked at, not time: a full and scattered store must not make each allocation walk the disk.
#[test]
fn allocation_stays_cheap_at_95_percent() {
    let blocks = 64 << 20 >> 4; // 16 GiB of space
    let mut alloc = Allocator::new(blocks, 256);
    let mut rng = StdRng::seed_from_u64(1);
    let mut held = Vec::new();
    while alloc.used() < blocks * 95 / 100 {
        held.extend(alloc.allocate(rng.random_range(1..64), None).unwrap());
    }
    let before = alloc.looked.get();
    let rounds = 20_000;
    for _ in 0..rounds {
        let index = (rng.next_u64() % held.len() as u64) as usize;
        alloc.release(held.swap_remove(index));
        alloc.freeze();
        alloc.thaw();
        held.extend(alloc.allocate(rng.random_range(1..64), None).unwrap());
    }
    let looked = (alloc.looked.get() - before) / rounds;
    println!("allocate and free at 95 %: {looked} chunks and words looked at");
    // The bitmap has 16,384 words in 256 chunks.
    assert!(looked < 250, "{looked} chunks and words for each allocation");
    let runs = held.len() as f64;
    assert!(alloc.used() as f64 / runs > 8.0, "runs of {} blocks on average", alloc.used() as f64 / runs);
}
