//! The golden maps byte for byte, every length of the tail, and bytes that are no map.

use super::{BinaryError, decode, encode};
use crate::model::{MsrTunables, Tunables};
use crate::text;
use crate::text::golden::texts;

fn binary(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/crush");
    std::fs::read(folder.join(format!("{name}.crush.bin"))).unwrap()
}

#[test]
fn golden_texts_compile_to_golden_binaries() {
    for (name, text) in texts() {
        let map = text::parse(&text).unwrap();
        let wanted = binary(&name);
        assert_eq!(decode(&wanted).as_ref(), Ok(&map), "{name}");
        assert!(encode(&map) == wanted, "{name}: compiled, the binary differs");
        assert_eq!(text::print(&decode(&wanted).unwrap()), text, "{name}");
    }
}

/// Bytes of the tail behind the names: tunables, classes and choose_args of a map that has none of the latter.
const TAIL: usize = 12 + 4 + 1 + 1 + 4 + 1 + 12 + 4;

#[test]
fn a_shorter_tail_means_the_values_of_its_time() {
    let whole = binary("tree444");
    let names_end = whole.len() - TAIL;
    let tunables = |len: usize| decode(&whole[..names_end + len]).map(|map| map.tunables);
    let mut want = Tunables::LEGACY;
    assert_eq!(tunables(0), Ok(want));
    want.choose_local_tries = 0;
    want.choose_local_fallback_tries = 0;
    want.choose_total_tries = 50;
    assert_eq!(tunables(12), Ok(want));
    want.chooseleaf_descend_once = 1;
    assert_eq!(tunables(16), Ok(want));
    want.chooseleaf_vary_r = 1;
    assert_eq!(tunables(17), Ok(want));
    want.straw_calc_version = 1;
    assert_eq!(tunables(18), Ok(want));
    want.allowed_bucket_algs = 54;
    assert_eq!(tunables(22), Ok(want));
    want.chooseleaf_stable = 1;
    assert_eq!(want, Tunables::JEWEL);
    for len in [23, 23 + 12, TAIL] {
        assert_eq!(tunables(len), Ok(want), "{len}");
    }
    let between: Vec<usize> = (0..TAIL).filter(|len| tunables(*len).is_ok()).collect();
    assert_eq!(between, [0, 12, 16, 17, 18, 22, 23, 35]);
}

#[test]
fn the_tail_of_newer_releases_is_carried_along() {
    let mut bytes = binary("tree444");
    bytes.extend_from_slice(&[100, 0, 0, 0, 7, 0, 0, 0]);
    let map = decode(&bytes).unwrap();
    assert_eq!(map.msr, Some(MsrTunables { descents: 100, collision_tries: 7 }));
    assert_eq!(encode(&map), bytes);
    assert_eq!(text::parse(&text::print(&map)), Ok(map));
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(BinaryError::Trailing { at: bytes.len() - 9, left: 9 }));
}

#[test]
fn straws_of_another_time_are_kept() {
    let bytes = binary("tree444-straw-calc0");
    let old = decode(&bytes).unwrap();
    assert!(old.buckets.values().all(|bucket| bucket.straws.is_none()));
    // The tunable alone is switched on; the straws stay as version 0 computed them.
    let mut switched = bytes.clone();
    let at = bytes.len() - TAIL + 17;
    switched[at] = 1;
    let map = decode(&switched).unwrap();
    assert!(map.buckets.values().any(|bucket| bucket.straws.is_some()));
    assert_eq!(encode(&map), switched);
}

#[test]
fn what_is_cut_off_is_no_map() {
    for name in ["classes", "chooseargs", "tree444-mixed"] {
        let whole = binary(name);
        let fit: Vec<usize> = (0..whole.len()).filter(|len| decode(&whole[..*len]).is_ok()).collect();
        // Only behind the parts of the tail.
        assert!(fit.len() <= 8, "{name}: {fit:?}");
        assert!(matches!(decode(&whole[..whole.len() / 2]), Err(BinaryError::Truncated { .. })));
    }
}

#[test]
fn no_single_flipped_byte_is_a_panic_and_what_is_read_is_written() {
    for name in ["classes", "chooseargs", "small3", "tree444-mixed2"] {
        let whole = binary(name);
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Ok(map) = decode(&bytes) {
                    assert!(decode(&encode(&map)) == Ok(map), "{name} byte {at} ^ {flip:#x}");
                }
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let shown = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert!(shown(b"# begin crush map").contains("no binary crush map"));
    assert!(shown(&[]).contains("ends at byte 0, within the magic"));
    let whole = binary("small3");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        shown(&changed)
    };
    assert!(with(4, &[0xff; 4]).contains("number of bucket slots cannot be 4294967295"));
    assert!(with(16, &[9]).contains("a bucket algorithm cannot be 9"));
    assert!(with(20, &[0xfe]).contains("the slot of bucket -1 holds bucket -2"));
    assert!(with(24, &[0]).contains("a bucket's type cannot be 0"));
    assert!(with(26, &[4]).contains("the second time"));
    assert!(with(32, &[0xff; 4]).contains("within a bucket's items"));
    let name = whole.windows(5).position(|bytes| bytes == b"osd.2").unwrap();
    assert!(with(name, &[0xff]).contains("a device's or bucket's name is not plain UTF-8"));
    assert!(with(name, b"\n").contains("is not plain UTF-8"));
    let list = binary("tree444-list");
    let mut damaged = list.clone();
    // magic, three counts, bucket head of 20 bytes, four items; then weight and sum of the first.
    damaged[16 + 20 + 16 + 4] ^= 1;
    assert!(shown(&damaged).contains("the list numbers of bucket -1 do not follow"));
}

#[test]
fn an_empty_name_is_none() {
    // Found by fuzzing: a key of 64 bits with a length of 0 behind it.
    let mut bytes = vec![0, 0, 1, 0];
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 8]);
    let map = decode(&bytes).unwrap();
    assert!(map.types.is_empty());
    assert_eq!(decode(&encode(&map)), Ok(map));
}
