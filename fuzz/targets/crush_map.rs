//! Any map that can be read: the mapper refuses it or maps with it, within its budget, and says the same twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_crush::binary;
use nacre_crush::map::{Mapper, Workspace};
use nacre_crush::model::Weight;

/// Draws a mapping may cost here: enough for any sane map, few enough for many runs a second.
const BUDGET: u32 = 20_000;

fuzz_target!(|input: &[u8]| {
    // The last bytes say what to ask for.
    let Some((bytes, [positions, x, out, half])) = input.split_last_chunk::<4>() else { return };
    let Ok(map) = binary::decode(bytes) else { return };
    let Ok(mapper) = Mapper::new(&map) else { return };
    let mapper = mapper.with_budget(BUDGET);
    let mut reweights = vec![Weight::ONE; 256];
    reweights[usize::from(*out)] = Weight::ZERO;
    reweights[usize::from(*half)] = Weight(0x8000);
    let positions = u32::from(*positions % 24);
    let (mut one, mut other) = (Workspace::default(), Workspace::default());
    for rule in map.rules.keys().take(8) {
        for args in [None, Some(-1), map.choose_args.keys().next().copied()] {
            let Ok(plan) = mapper.plan(*rule, positions, args) else { continue };
            let x = u32::from(*x);
            let first = plan.map(x, &reweights, &mut one).to_vec();
            assert_eq!(first, plan.map(x, &reweights, &mut other));
            let _ = plan.map(x.wrapping_mul(0x9e37_79b9), &reweights, &mut one);
        }
    }
});
