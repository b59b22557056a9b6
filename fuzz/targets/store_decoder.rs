//! Any bytes for each decoder of the store: a value or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| nacre_store::fuzz::decoder(input));
