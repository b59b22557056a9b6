//! Any values in the metadata database of a store: it refuses them, or works on.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| nacre_store::fuzz::metadata(input));
