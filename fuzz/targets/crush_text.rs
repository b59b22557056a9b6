//! Any text: an error or a map, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_crush::{binary, text};

fuzz_target!(|input: &str| {
    let map = match text::parse(input) {
        Ok(map) => map,
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1 && error.width >= 1);
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(binary::decode(&binary::encode(&map)).as_ref(), Ok(&map));
    // Printing puts devices in order, and classes get their numbers by that order; from then on nothing moves.
    let ordered = text::parse(&text::print(&map)).expect("what is printed can be read");
    assert_eq!(text::parse(&text::print(&ordered)).as_ref(), Ok(&ordered));
});
