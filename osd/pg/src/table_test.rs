//! The table of states in the documents is what the code says, and the core is as pure as it says.

use std::fmt::Write as _;

use crate::TRANSITIONS;

#[test]
fn the_table_of_states_is_current() {
    let mut text = String::from(
        "# States of a placement group\n\nGenerated from `TRANSITIONS` in `osd/pg/src/pg.rs` by a test; edits by hand do not last. `*` is any \
         state. A move that is not\nlisted stops the osd when its checks are on.\n\n| from | to | when |\n| --- | --- | --- |\n",
    );
    for (from, to, by) in TRANSITIONS {
        writeln!(text, "| {from} | {to} | {by} |").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/internals/pg-states.md");

    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, text, "docs/internals/pg-states.md is behind the code: run this test with NACRE_REWRITE=1");
}

#[test]
fn every_state_but_the_first_can_be_reached() {
    for (from, _, _) in TRANSITIONS.iter().filter(|(f, _, _)| *f != "*" && *f != "dormant") {
        assert!(TRANSITIONS.iter().any(|(_, to, _)| to == from), "nothing leads to {from}");
    }
}

/// All a run depends on comes in with a step: nothing here asks a clock, a file, a socket or another thread, and nothing has an
/// order of its own.
#[test]
fn nothing_here_reaches_outside() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.to_string_lossy().ends_with("_test.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["std::time", "std::net", "std::fs", "std::thread", "std::env", "Mutex", "HashMap", "HashSet"] {
                assert!(!text.contains(word), "{}: {word} has no place in the core", path.display());
            }
            read += 1;
        }
    }
    assert!(read > 30, "only {read} files were looked at");
}
