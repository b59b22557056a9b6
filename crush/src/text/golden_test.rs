//! Every golden text map prints back as it was read.

use crate::text;

/// Name and text of every golden map.
pub(crate) fn texts() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/crush");
    let mut maps = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if let Some(name) = file.strip_suffix(".crush.txt") {
            maps.push((name.to_owned(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    maps.sort();
    assert_eq!(maps.len(), 22, "a golden map is missing");
    maps
}

#[test]
fn golden_texts_print_as_they_were_read() {
    for (name, text) in texts() {
        let map = text::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let printed = text::print(&map);
        for (line, (printed, wanted)) in printed.lines().zip(text.lines()).enumerate() {
            assert_eq!(printed, wanted, "{name}, line {}", line + 1);
        }
        assert_eq!(printed, text, "{name}");
    }
}
