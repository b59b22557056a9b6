//! Any bytes, also behind a valid checksum: an error or a map, and what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nacre_maps::ClusterMap;
use nacre_maps::placement::Placement;

fuzz_target!(|input: &[u8]| {
    let _ = ClusterMap::decode(input);
    // A checksum would keep the fuzzer outside: seal what it made.
    let mut sealed = b"NCMP\x01\x01".to_vec();
    sealed.extend_from_slice(input);
    sealed.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
    let Ok(map) = ClusterMap::decode(&sealed) else { return };
    let again = ClusterMap::decode(&map.encode()).unwrap();
    assert_eq!(again.digest(), map.digest());
    assert_eq!(again.encode(), map.encode());
    // Placing it is refused or ends; only small ones are tried, as a pool may claim any number of pgs.
    if map.pools.values().all(|pool| pool.pg_num <= 64 && pool.size <= 16) && map.osds.len() < 64 {
        if let Ok(placement) = Placement::build(map.into()) {
            placement.pgs().take(64).for_each(|pg| drop(placement.pg(pg)));
        }
    }
});
