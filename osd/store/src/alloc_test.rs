//! The allocator against a plain set of blocks, and what it promises about places and speed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn run(start: u64, len: u64) -> Run {
    Run { start, len }
}

#[test]
fn a_stream_with_hints_stays_in_one_piece_also_across_chunks() {
    let mut space = Allocator::new(4 * CHUNK);
    let mut end = space.alloc(100, None).unwrap()[0].end();
    for _ in 0..700 {
        let runs = space.alloc(100, Some(end)).unwrap();
        assert_eq!(runs, [run(end, 100)]);
        end += 100;
    }
    assert!(end > 2 * CHUNK);
}

#[test]
fn small_runs_fill_gaps_and_leave_long_runs_alone() {
    let mut space = Allocator::new(3 * CHUNK);
    // Given one chunk full of gaps of two blocks
    space.mark_used(run(0, CHUNK)).unwrap();
    for at in (0..CHUNK).step_by(64) {
        space.free(run(at, 2)).unwrap();
    }
    // When pairs are asked for, then they come from the gaps
    for _ in 0..CHUNK / 64 {
        let runs = space.alloc(2, None).unwrap();
        assert!(runs.len() == 1 && runs[0].end() <= CHUNK, "{runs:?}");
    }
    // And a long run is still whole
    assert_eq!(space.alloc(2 * CHUNK, None).unwrap(), [run(CHUNK, 2 * CHUNK)]);
    assert_eq!(space.free_blocks(), 0);
    assert_eq!(space.alloc(1, None), Err(AllocError::NoSpace { wanted: 1, free: 0 }));
}

#[test]
fn the_last_block_can_be_had_however_scattered() {
    let mut space = Allocator::new(CHUNK + 100);
    space.mark_used(run(0, CHUNK + 100)).unwrap();
    for at in (0..CHUNK + 100).step_by(3) {
        space.free(run(at, 1)).unwrap();
    }
    let free = space.free_blocks();
    let runs = space.alloc(free, None).unwrap();
    assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), free);
    assert_eq!(space.free_blocks(), 0);
}

#[test]
fn what_a_transaction_freed_is_not_handed_out_before_its_checkpoint() {
    let mut space = Allocator::new(1000);
    let all = space.alloc(1000, None).unwrap();
    assert_eq!(all, [run(0, 1000)]);
    space.hold(run(10, 5)).unwrap();
    assert!(space.alloc(1, None).is_err());

    // Given a checkpoint under way, and another free after it began
    let written = space.checkpoint_begin();
    space.hold(run(20, 5)).unwrap();
    let loaded = Allocator::load(1000, written).unwrap();
    assert_eq!(loaded.free_blocks(), 5, "the checkpoint shows what was freed before it");
    assert!(space.alloc(1, None).is_err(), "it is not durable yet");

    // When it is durable, then only what it holds can be had
    assert_eq!(space.checkpoint_done(), [run(10, 5)]);
    assert_eq!(space.alloc(5, None).unwrap(), [run(10, 5)]);
    assert!(space.alloc(1, None).is_err());
    assert_eq!(space.held_blocks(), 5);
}

#[test]
fn a_block_has_one_owner_and_is_given_back_once() {
    let mut space = Allocator::new(100);
    space.mark_used(run(10, 10)).unwrap();
    assert_eq!(space.mark_used(run(5, 6)), Err(AllocError::InUse { run: run(5, 6) }));
    assert_eq!(space.hold(run(19, 2)), Err(AllocError::NotInUse { run: run(19, 2) }));
    assert_eq!(space.free(run(0, 1)), Err(AllocError::NotInUse { run: run(0, 1) }));
    assert_eq!(space.mark_used(run(99, 2)), Err(AllocError::Outside { run: run(99, 2), blocks: 100 }));
    assert_eq!(space.hold(run(u64::MAX, 2)), Err(AllocError::Outside { run: run(u64::MAX, 2), blocks: 100 }));
    assert_eq!(space.free_blocks(), 90);
    space.hold(run(10, 4)).unwrap();
    assert_eq!(space.free(run(12, 4)), Err(AllocError::NotInUse { run: run(12, 4) }), "held is given back already");
}

#[test]
fn a_bitmap_for_a_chunk_that_is_not_there_is_refused() {
    let refused = Allocator::load(CHUNK, [(1, [0; BITMAP])]).unwrap_err();
    assert_eq!(refused, AllocError::NoChunk { chunk: 1, blocks: CHUNK });
}

#[test]
fn memory_follows_what_is_mixed_and_not_the_size() {
    let blocks = 10 << 28; // 10 TiB
    let mut space = Allocator::new(blocks);
    assert!(space.memory_bytes() < 4 << 20, "{}", space.memory_bytes());
    space.alloc(blocks / 2, None).unwrap();
    assert!(space.memory_bytes() < 4 << 20, "{}", space.memory_bytes());
}

#[test]
fn a_nearly_full_and_scattered_space_still_serves_every_size() {
    // Given 95 % used at random
    let blocks = 256 * CHUNK;
    let mut space = Allocator::new(blocks);
    space.mark_used(run(0, blocks)).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut free = 0;
    while free < blocks / 20 {
        let start = rng.random_range(0..blocks - 8);
        let piece = run(start, rng.random_range(1..8));
        if space.all(piece, true) {
            space.free(piece).unwrap();
            free += piece.len;
        }
    }
    // When much of the rest is handed out and given back, then nothing is lost and nothing refused
    let mut owned = Vec::new();
    for round in 0..20_000u64 {
        let want = 1 + round % 7;
        let runs = space.alloc(want, None).unwrap();
        assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), want);
        owned.extend(runs);
        if owned.len() > 1000 {
            let back = owned.swap_remove(rng.random_range(0..owned.len()));
            space.free(back).unwrap();
        }
    }
    let held: u64 = owned.iter().map(|run| run.len).sum();
    assert_eq!(space.free_blocks(), free - held);
}

#[derive(Clone, Debug)]
enum Act {
    Alloc(u64, Option<u64>),
    /// Gives back the owned run with this number: at once, or with the next checkpoint.
    Free(usize, bool),
    Begin,
    Done,
    /// What a crash leaves: the last durable checkpoint.
    Reload,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u64..3000, proptest::option::of(0..3 * CHUNK)).prop_map(|(count, hint)| Act::Alloc(count, hint)),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, now)| Act::Free(which, now)),
        2 => Just(Act::Begin),
        2 => Just(Act::Done),
        1 => Just(Act::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_does_what_a_plain_set_of_blocks_does(
        blocks in 1..3 * CHUNK + 7,
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut space = Allocator::new(blocks);
        let mut owned: Vec<Run> = Vec::new();
        let mut used = BTreeSet::new();
        let (mut holds, mut releasing): (Vec<Run>, Option<Vec<Run>>) = (Vec::new(), None);
        let mut disk = BTreeMap::new();
        let mut pending = Vec::new();
        for act in acts {
            match act {
                Act::Alloc(count, hint) => match space.alloc(count, hint) {
                    Err(error) => prop_assert_eq!(
                        error,
                        AllocError::NoSpace { wanted: count, free: blocks - used.len() as u64 }
                    ),
                    Ok(runs) => {
                        prop_assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), count);
                        for run in runs {
                            for block in run.start..run.end() {
                                prop_assert!(block < blocks && used.insert(block), "block {} twice", block);
                            }
                            owned.push(run);
                        }
                    }
                },
                Act::Free(which, now) if !owned.is_empty() => {
                    let at = which % owned.len();
                    let run = owned.swap_remove(at);
                    if now {
                        space.free(run).unwrap();
                        (run.start..run.end()).for_each(|block| { used.remove(&block); });
                    } else {
                        space.hold(run).unwrap();
                        holds.push(run);
                    }
                }
                Act::Begin if releasing.is_none() => {
                    pending = space.checkpoint_begin();
                    releasing = Some(std::mem::take(&mut holds));
                }
                Act::Done => if let Some(runs) = releasing.take() {
                    disk.extend(pending.drain(..));
                    space.checkpoint_done();
                    for run in runs {
                        (run.start..run.end()).for_each(|block| { used.remove(&block); });
                    }
                },
                Act::Reload if releasing.is_none() => {
                    // A checkpoint now, so that the crash loses nothing and both sides stay comparable.
                    disk.extend(space.checkpoint_begin());
                    space.checkpoint_done();
                    for run in holds.drain(..) {
                        (run.start..run.end()).for_each(|block| { used.remove(&block); });
                    }
                    space = Allocator::load(blocks, disk.iter().map(|(at, bits)| (*at, *bits))).unwrap();
                }
                _ => {}
            }
            prop_assert_eq!(space.free_blocks(), blocks - used.len() as u64);
        }
        let listed: BTreeSet<u64> = space.used_runs().into_iter().flat_map(|run| run.start..run.end()).collect();
        prop_assert_eq!(listed, used);
    }
}
