//! Any bytes as a monitor's snapshot, as a backup behind a valid checksum, and as a record: an error, or what can be
//! written and read again.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_mon::backup;
use nacre_mon::state::State;
use nacre_mon::store::record::{self, Kind};

fuzz_target!(|input: &[u8]| {
    let _ = record::decode(Kind::Entry, b"key", input);
    let _ = backup::unpack(input);
    let Ok(state) = State::decode(Bytes::copy_from_slice(input)) else { return };
    let again = State::decode(state.encode()).unwrap();
    assert_eq!(again.encode(), state.encode());
    let (sealed, _) = backup::pack(&state.encode()).unwrap();
    assert_eq!(backup::unpack(&sealed).unwrap().encode(), state.encode());
});
