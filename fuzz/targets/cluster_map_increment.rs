//! Any increment against a small map: refused, or applied to a map that can be written and read, and undone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_maps::{ClusterMap, Increment};
use nacre_proto::ids::Uuid;

fuzz_target!(|input: &[u8]| {
    let mut sealed = b"NCIN\x01\x01".to_vec();
    sealed.extend_from_slice(input);
    sealed.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
    let Ok(mut increment) = Increment::decode(&sealed) else { return };
    assert_eq!(Increment::decode(&increment.encode()).as_ref(), Ok(&increment));
    let base = ClusterMap::empty(Uuid::default());
    (increment.fsid, increment.from, increment.digest) = (base.fsid, base.epoch, None);
    let Ok(next) = base.apply(&increment) else { return };
    assert_eq!(next.apply(&next.diff(&base)).unwrap(), base);
    assert_eq!(base.apply(&base.diff(&next)).unwrap(), next);
});
