//! Every mapping that Ceph's own tools made, made again here. The vectors and their README are in `fixtures/crush`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is the test's report, the count its proof")]

mod maps;
mod pgs;

use flate2::read::GzDecoder;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/crush").join(name)
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn unzipped(name: &str) -> String {
    let mut text = String::new();
    let file = File::open(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    GzDecoder::new(file).read_to_string(&mut text).unwrap_or_else(|error| panic!("{name}: {error}"));
    text
}

/// `[1,2,3]`
fn list(text: &str) -> Vec<i32> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().unwrap()).collect()
}
