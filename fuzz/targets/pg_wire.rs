//! Any bytes as what travels between replicas and clients: a value or an error, and a value comes back as it was.

#![no_main]

use std::fmt::Debug;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_pg::format::Codec;
use nacre_pg::op::Reply;
use nacre_pg::wire::{Ask, Said, decode, encode};

fn holds<T: Codec + PartialEq + Debug>(meta: &Bytes, data: &Bytes) {
    if let Ok(value) = decode::<T>(meta, data) {
        let again = encode(&value);
        assert_eq!(decode::<T>(&again.meta, &again.data).ok(), Some(value));
    }
}

fuzz_target!(|input: &[u8]| {
    // Once whole, once with payloads apart: the first byte says where they begin.
    let bytes = Bytes::copy_from_slice(input);
    let meta = bytes.slice(..bytes.first().map_or(0, |first| usize::from(*first)).min(bytes.len()));
    for (meta, data) in [(Bytes::new(), bytes.clone()), (meta.clone(), bytes.slice(meta.len()..))] {
        holds::<Said>(&meta, &data);
        holds::<Ask>(&meta, &data);
        holds::<Reply>(&meta, &data);
    }
});
