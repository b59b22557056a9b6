//! Any bytes: an error or a map, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_crush::{binary, text};

fuzz_target!(|input: &[u8]| {
    let Ok(map) = binary::decode(input) else { return };
    assert_eq!(binary::decode(&binary::encode(&map)).as_ref(), Ok(&map));
    // A damaged map may print as a text that means nothing; but it prints, and reading it ends.
    let _ = text::parse(&text::print(&map));
});
