//! Increments lead where they say, back and forth, in memory and as bytes; what does not fit is refused.

use nacre_proto::ids::Incarnation;
use proptest::prelude::*;

use super::*;
use crate::map::OsdFlags;
use crate::sample::{self, NOW, edited, edits};

proptest! {
    #[test]
    fn diff_and_apply_are_exact_inverses(one in edits(), other in edits(), shared in edits()) {
        let base = edited(&sample::full(), &shared, 200);
        let a = edited(&base, &one, 201);
        let b = edited(&base, &other, 205);
        let forth = a.diff(&b);
        let back = b.diff(&a);
        prop_assert_eq!(&a.apply(&forth).unwrap(), &b);
        prop_assert_eq!(&b.apply(&back).unwrap(), &a);
        prop_assert_eq!(a.apply(&forth).unwrap().digest(), b.digest());
        prop_assert_eq!(a.diff(&a.apply(&forth).unwrap()), forth);
    }

    #[test]
    fn bytes_lead_to_the_same_map(one in edits(), other in edits()) {
        let a = edited(&sample::full(), &one, 201);
        let b = edited(&a, &other, 202);
        let forth = a.diff(&b);
        prop_assert_eq!(&Increment::decode(&forth.encode()).unwrap(), &forth);
        let copy = ClusterMap::decode(&a.encode()).unwrap();
        prop_assert_eq!(copy.digest(), a.digest());
        prop_assert_eq!(copy.apply(&forth).unwrap().encode(), b.encode());
    }

    #[test]
    fn two_increments_in_a_row_equal_the_one_between_their_ends(one in edits(), other in edits()) {
        let a = edited(&sample::full(), &[], 201);
        let b = edited(&a, &one, 202);
        let c = edited(&b, &other, 203);
        let stepped = a.apply(&a.diff(&b)).unwrap().apply(&b.diff(&c)).unwrap();
        prop_assert_eq!(stepped, a.apply(&a.diff(&c)).unwrap());
    }

    #[test]
    fn damaged_bytes_never_pass_and_never_panic(at in 0usize..4000, flip in 1u8..=255, cut in 0usize..4000) {
        let bytes = sample::full().encode();
        let mut damaged = bytes.clone();
        let at = at % bytes.len();
        damaged[at] ^= flip;
        prop_assert!(ClusterMap::decode(&damaged).is_err());
        prop_assert!(ClusterMap::decode(&bytes[..cut % bytes.len()]).is_err());
    }

    /// Behind a good checksum: the decoder must hold by itself.
    #[test]
    fn damage_under_a_valid_checksum_is_an_error_or_a_map(at in 6usize..4000, value in any::<u8>()) {
        let mut bytes = sample::full().encode();
        let end = bytes.len() - 4;
        bytes[6 + at % (end - 6)] = value;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(map) = ClusterMap::decode(&bytes) {
            prop_assert!(ClusterMap::decode(&map.encode()).is_ok());
        }
    }
}

#[test]
fn an_unchanged_draft_is_no_increment() {
    let map = sample::full();
    let mut draft = Draft::of(&map, NOW);
    let state = draft.osds.get(OsdId(0)).unwrap().clone();
    assert!(draft.osds.set(OsdId(0), state));
    assert_eq!(draft.finish(), None);
}

#[test]
fn a_draft_changes_what_was_edited_and_nothing_else() {
    let map = sample::full();
    let mut draft = Draft::of(&map, Stamp(1));
    let mut state = draft.osds.get(OsdId(0)).unwrap().clone();
    state.flags.remove(OsdFlags::UP);
    state.down_at = draft.epoch;
    assert!(draft.osds.set(OsdId(0), state));
    let increment = draft.finish().unwrap();
    assert_eq!((increment.from, increment.epoch), (Epoch(100), Epoch(101)));
    assert_eq!(increment.modified, map.modified, "a clock behind the map's does not turn it back");
    assert_eq!(increment.osds.len(), 1);
    assert_eq!(increment.digest, Some(map.apply(&increment).unwrap().digest()));
    assert!(increment.encode().len() < 120, "{} bytes", increment.encode().len());
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let map = sample::full();
    let next = edited(&map, &[], 101);
    let increment = map.diff(&next);
    assert!(matches!(next.apply(&increment), Err(ApplyError::NotNext { .. })));
    let stranger = Increment { fsid: Uuid([9; 16]), ..increment.clone() };
    assert!(matches!(map.apply(&stranger), Err(ApplyError::OtherCluster { .. })));
    let mut other = map.clone();
    let state = OsdState { incarnation: Incarnation(99), ..OsdState::fresh(NOW) };
    assert!(other.osds.set(OsdId(1), state));
    let refused = other.apply(&increment).unwrap_err();
    assert!(matches!(refused, ApplyError::Diverged { .. }), "{refused}");
    assert_eq!(refused.status().code, Code::StaleMap);
    let mut beyond = increment;
    beyond.osds.insert(OsdId(u32::MAX), Some(OsdState::fresh(NOW)));
    assert!(matches!(map.apply(&beyond), Err(ApplyError::TooManyOsds { .. })));
}

#[test]
fn a_section_of_a_later_version_is_skipped() {
    let map = sample::full();
    let mut increment = map.diff(&edited(&map, &[], 101));
    increment.digest = None;
    let bytes = seal(INCREMENT_MAGIC, |out| {
        increment.put_body(out);
        out.push(200);
        put_part(out, |out| out.extend_from_slice(b"whatever it is"));
    });
    assert_eq!(Increment::decode(&bytes).unwrap(), increment);
}

#[test]
fn a_map_that_needs_a_later_reader_says_so() {
    let mut bytes = sample::full().encode();
    bytes[5] = VERSION + 1;
    let end = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(ClusterMap::decode(&bytes), Err(DecodeError::TooNew { what: "cluster map", needed: VERSION + 1 }));
    assert!(matches!(Increment::decode(&bytes), Err(DecodeError::Magic { .. })));
}

/// The bytes of each format version stay readable for ever. A new version adds files and keeps these.
#[test]
fn bytes_of_version_1_are_read_and_still_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/maps");
    let map = sample::full();
    let increment = ClusterMap::empty(sample::FSID).diff(&map);
    let fixtures = [("v1-map.bin", map.encode()), ("v1-increment.bin", increment.encode())];
    for (name, bytes) in &fixtures {
        let path = format!("{folder}/{name}");
        if std::env::var_os("NACRE_BLESS").is_some() && !std::path::Path::new(&path).exists() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let read = |name: &str| std::fs::read(format!("{folder}/{name}")).unwrap();
    assert_eq!(ClusterMap::decode(&read("v1-map.bin")).unwrap(), map);
    assert_eq!(Increment::decode(&read("v1-increment.bin")).unwrap(), increment);
    for (name, bytes) in &fixtures {
        assert_eq!(&read(name), bytes, "{name}: what is written changed, so the version must change");
    }
}
