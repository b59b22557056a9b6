//! The bounds the kernels rest on, for all hashes, and their draws against the definition.

use super::*;
use crate::hash::hash3;
use crate::map::straw2;
use proptest::prelude::*;

/// One draw of a bucket that lies at the beginning of the pool.
fn job(x: u32, r: u32, size: usize) -> Job {
    Job { x, r, ids: 0, weights: 0, size: size as u32, start: 0, tag: 0 }
}

#[test]
fn the_depth_lies_within_its_bounds_for_every_hash() {
    const ITEMS: usize = 1024;
    // A reciprocal of one leaves the bound of the depth itself in the scratch memory.
    let pool =
        Pool { ids: (0..ITEMS as u32).collect(), weights: vec![1; ITEMS], reciprocals: vec![1.0_f32.to_bits(); ITEMS] };
    for kernel in Kernel::all() {
        let mut seen = vec![false; 0x10000];
        let (mut jobs, mut bounds) = (Jobs::default(), Vec::new());
        for x in 0..1600 {
            jobs.clear();
            jobs.push(job(x, 0, ITEMS));
            kernel.draw(&pool, &mut jobs, 16, &mut bounds);
            for (id, low) in bounds.iter().enumerate() {
                let hash = hash3(x, id as u32, 0) & 0xffff;
                seen[hash as usize] = true;
                let low = f64::from(f32::from_bits(*low));
                let depth = depth(hash) as f64 / f64::from(UNIT);
                // The sum of bound and spread is rounded to a float, too.
                let high = low + f64::from(SPREAD) - 2e-6;
                assert!(low < depth && depth < high, "{}: hash {hash}: {low} {depth}", kernel.name());
            }
        }
        let unseen = seen.iter().filter(|seen| !**seen).count();
        assert_eq!(unseen, 0, "{}: the inputs do not reach all hashes", kernel.name());
    }
}

fn weight() -> impl Strategy<Value = u32> {
    // Equal, alike, anything, and none: ties, close calls, long distances, items that never win.
    prop_oneof![
        4 => Just(0x10000_u32),
        3 => 0xff00..0x10100_u32,
        2 => any::<u32>(),
        1 => 1..100_u32,
        1 => (u32::MAX - 100)..=u32::MAX,
        1 => Just(0_u32),
    ]
}

proptest! {
    #[test]
    fn kernels_draw_what_the_definition_draws(
        weights in prop::collection::vec(weight(), 1..70),
        // A few ids only: equal ids draw equal hashes, so ties.
        ids in prop::collection::vec(prop_oneof![0..4_u32, any::<u32>()], 70),
        draws in prop::collection::vec((any::<u32>(), 0..50_u32), 1..60),
    ) {
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        let size = weights.len();
        let ids = &ids[..size];
        let rooms: &[usize] = match size {
            0..=4 => &[4, 8, 16],
            5..=8 => &[8, 16],
            _ => &[16],
        };
        let room = size.next_multiple_of(16);
        let mut pool = Pool { ids: ids.to_vec(), weights: weights.clone(), ..Pool::default() };
        pool.ids.resize(room, 0);
        pool.weights.resize(room, 0);
        pool.reciprocals = pool.weights.iter().map(|&weight| reciprocal(weight).to_bits()).collect();
        for kernel in Kernel::all() {
            for &room in rooms {
                let (mut jobs, mut bounds) = (Jobs::default(), Vec::new());
                draws.iter().for_each(|&(x, r)| jobs.push(job(x, r, size)));
                kernel.draw(&pool, &mut jobs, room, &mut bounds);
                for (drawn, &(x, r)) in jobs.drawn().zip(&draws) {
                    prop_assert_eq!(drawn.at, straw2(ids, &weights, x, r), "{} in {}", kernel.name(), room);
                }
            }
        }
    }
}

#[test]
fn every_machine_has_a_kernel() {
    assert_eq!(Kernel::all()[0].name(), "portable");
    assert_eq!(Kernel::all().last(), Some(&Kernel::best()));
}
