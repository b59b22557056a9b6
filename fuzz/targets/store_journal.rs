//! Any effects in a record of the journal: opening refuses them, or the store works on.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| nacre_store::fuzz::journal(input));
