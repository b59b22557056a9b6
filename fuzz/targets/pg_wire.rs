//! Any bytes as what travels between replicas and clients: a value or an error, and a value comes back as it was.

#![no_main]

use std::fmt::Debug;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_pg::format::Codec;
use nacre_pg::op::Reply;
use nacre_pg::wire::{Ask, Said, decode, encode};

fn holds<T: Codec + PartialEq + Debug>(bytes: &Bytes) {
    if let Ok(value) = decode::<T>(bytes) {
        let again = encode(&value);
        assert_eq!(decode::<T>(&again).ok(), Some(value));
    }
}

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    holds::<Said>(&bytes);
    holds::<Ask>(&bytes);
    holds::<Reply>(&bytes);
});
