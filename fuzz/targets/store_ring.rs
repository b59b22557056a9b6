//! Any bytes at any place of the journal: damage is seen, or does not matter.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| nacre_store::fuzz::ring(input));
