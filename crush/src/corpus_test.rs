//! What the fuzzers found worth keeping, run through the decoders at every test: no panic, and what is read is written.

use std::path::Path;

use crate::{binary, check, text};

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let inputs: Vec<Vec<u8>> = files.collect();
    assert!(inputs.len() > 20, "the corpus of {target} is gone");
    inputs
}

#[test]
fn texts_of_the_corpus() {
    let mut read = 0;
    for input in inputs("crush_text") {
        let Ok(map) = text::parse(&String::from_utf8_lossy(&input)) else { continue };
        read += 1;
        assert!(binary::decode(&binary::encode(&map)).as_ref() == Ok(&map));
        let ordered = text::parse(&text::print(&map)).unwrap();
        assert!(text::parse(&text::print(&ordered)) == Ok(ordered));
    }
    assert!(read > 0);
}

#[test]
fn binaries_of_the_corpus() {
    let mut read = 0;
    // Behind the maps of that target stand four bytes of what to ask them.
    let asked = inputs("crush_map").into_iter().map(|input| input[..input.len().saturating_sub(4)].to_vec());
    for input in inputs("crush_binary").into_iter().chain(asked) {
        let Ok(map) = binary::decode(&input) else { continue };
        read += 1;
        assert!(binary::decode(&binary::encode(&map)).as_ref() == Ok(&map));
        for flaw in check::check(&map) {
            assert!(!flaw.to_string().is_empty());
        }
        let _ = text::parse(&text::print(&map));
    }
    assert!(read > 0);
}
