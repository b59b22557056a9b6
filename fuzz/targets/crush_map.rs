//! Any map that can be read: the mapper refuses it or maps with it, within its budget, and gives the same whether one
//! input is mapped or many, and with whatever vector unit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_crush::binary;
use nacre_crush::check::satisfy;
use nacre_crush::map::{Kernel, Mapper, Mappings, Workspace};
use nacre_crush::model::Weight;

/// Draws a mapping may cost here: enough for any sane map, few enough for many runs a second.
const BUDGET: u32 = 4_000;

/// Inputs of one batch: more than the widest vector has lanes.
const INPUTS: u32 = 20;

fuzz_target!(|input: &[u8]| {
    // The last bytes say what to ask for.
    let Some((bytes, [positions, x, out, half])) = input.split_last_chunk::<4>() else { return };
    let Ok(map) = binary::decode(bytes) else { return };
    let Ok(best) = Mapper::new(&map) else { return };
    let portable = Mapper::new(&map).expect("it was made once").with_kernel(Kernel::all()[0]).with_budget(BUDGET);
    let best = best.with_budget(BUDGET);
    let mut reweights = vec![Weight::ONE; 256];
    reweights[usize::from(*out)] = Weight::ZERO;
    reweights[usize::from(*half)] = Weight(0x8000);
    let positions = u32::from(*positions % 24);
    let inputs = || (0..INPUTS).map(|n| u32::from(*x).wrapping_add(n.wrapping_mul(0x9e37_79b9)));
    let (mut one, mut many, mut mappings) = (Workspace::default(), Workspace::default(), Mappings::default());
    for rule in map.rules.keys().take(2) {
        for args in [None, map.choose_args.keys().next().copied()] {
            let (Ok(alone), Ok(batch)) = (portable.plan(*rule, positions, args), best.plan(*rule, positions, args))
            else {
                continue;
            };
            batch.map_all(inputs(), &reweights, &mut many, &mut mappings);
            for (x, found) in inputs().zip(mappings.iter()) {
                assert_eq!(alone.map(x, &reweights, &mut one), found);
            }
        }
    }
    // What is said of a rule that finds too little. That has its own budget, a larger one.
    if *x == 0 {
        for rule in map.rules.keys().take(1) {
            if let Ok(Some(shortfall)) = satisfy(&map, *rule, positions, 0..2, Some(&reweights)) {
                assert!(shortfall.causes.iter().all(|cause| !cause.to_string().is_empty()));
            }
        }
    }
});
