//! Any bytes: an error or a map, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_crush::{binary, check, text};

fuzz_target!(|input: &[u8]| {
    let Ok(map) = binary::decode(input) else { return };
    assert_eq!(binary::decode(&binary::encode(&map)).as_ref(), Ok(&map));
    // Whatever is wrong with it can be said.
    for flaw in check::check(&map) {
        assert!(!flaw.to_string().is_empty());
    }
    // A damaged map may print as a text that means nothing; but it prints, and reading it ends.
    let _ = text::parse(&text::print(&map));
});
