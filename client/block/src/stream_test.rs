//! The stream of images: its bytes, and what is refused.

use super::*;
use proptest::prelude::*;

fn head() -> Head {
    Head { size: 1 << 30, order: 22, from: "monday".into(), to: "tuesday".into() }
}

fn records() -> Vec<Record> {
    vec![Record::Data(4096, Bytes::from_static(b"mother of pearl")), Record::Zero(8192, 1 << 20), Record::End(2)]
}

fn whole() -> Vec<u8> {
    let mut bytes = head().encode();
    records().iter().for_each(|record| bytes.extend(record.encode()));
    bytes
}

fn read(mut bytes: &[u8]) -> Result<(Head, Vec<Record>), Error> {
    let head = Head::read(&mut bytes)?;
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Record::End(_))) {
        all.push(Record::read(&mut bytes)?);
    }
    Ok((head, all))
}

/// Version 1, as the first release wrote it. It is read for ever.
#[test]
fn the_first_version_has_the_bytes_it_always_had() {
    let kept = include_bytes!("../../../fixtures/block/stream-1.bin");
    assert_eq!(read(kept).unwrap(), (head(), records()));
    assert!(whole() == kept, "what is written now differs from the fixture");
}

#[test]
fn any_flipped_bit_and_any_cut_is_seen() {
    let bytes = whole();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(read(&bad).is_err(), "a flip at {at} went unseen");
        assert!(read(&bytes[..at]).is_err(), "a cut at {at} went unseen");
    }
}

#[test]
fn zeros_are_told_from_data_in_grains() {
    let mut data = vec![0; 5 * GRAIN];
    data[GRAIN] = 1;
    data[2 * GRAIN + 7] = 1;
    assert_eq!(runs(&data), [(0, GRAIN, true), (GRAIN, 2 * GRAIN, false), (3 * GRAIN, 2 * GRAIN, true)]);
    assert!(runs(&[]).is_empty());
}

proptest! {
    #[test]
    fn bytes_from_outside_are_refused_or_read_but_never_more(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let mut after = MAGIC.to_vec();
        after.extend_from_slice(&bytes);
        let _ = read(&after);
        let _ = Record::read(&mut &bytes[..]);
    }
}
