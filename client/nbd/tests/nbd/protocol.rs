//! What no stock client does: breaking the protocol, on a raw connection, byte by byte.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::disk::{Disk, Server, Shelf};
use nacre_nbd::Encryption;
use nacre_nbd::wire::{self, answer, command, flag, option};
use proptest::prelude::*;

/// A client that sends exactly what it is told to.
struct Raw(UnixStream);

impl Raw {
    fn connect(server: &Server) -> Raw {
        let stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut raw = Raw(stream);
        let hello = raw.take(18);
        assert_eq!(hello[..8], wire::MAGIC.to_be_bytes());
        raw.send(&3u32.to_be_bytes());
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Sends an option and returns the answers up to and including the last.
    fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send(&wire::OPTION_MAGIC.to_be_bytes());
        self.send(&option.to_be_bytes());
        self.send(&(data.len() as u32).to_be_bytes());
        self.send(data);
        let mut answers = Vec::new();
        loop {
            let head = self.take(20);
            assert_eq!(head[..8], wire::OPTION_REPLY_MAGIC.to_be_bytes());
            assert_eq!(head[8..12], option.to_be_bytes());
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let data = self.take(u32::from_be_bytes(head[16..20].try_into().unwrap()) as usize);
            answers.push((kind, data));
            if kind == answer::ACK || kind >> 31 == 1 {
                return answers;
            }
        }
    }

    fn go(&mut self, export: &str) -> u32 {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend(export.as_bytes());
        data.extend([0, 0]);
        self.option(option::GO, &data).last().unwrap().0
    }

    /// Sends a request in simple framing and returns the error number.
    fn request(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> u32 {
        self.send(&wire::REQUEST_MAGIC.to_be_bytes());
        self.send(&flags.to_be_bytes());
        self.send(&command.to_be_bytes());
        self.send(&77u64.to_be_bytes());
        self.send(&offset.to_be_bytes());
        self.send(&len.to_be_bytes());
        self.send(payload);
        let head = self.take(16);
        assert_eq!(head[8..], 77u64.to_be_bytes(), "the reply carries the request's cookie");
        u32::from_be_bytes(head[4..8].try_into().unwrap())
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0)) || self.0.write_all(&[0; 64]).is_err()
    }
}

const SIZE: u64 = 1 << 20;

fn server() -> (Arc<Disk>, Server) {
    let disk = Disk::new(SIZE);
    let shelf = Shelf(BTreeMap::from([("a".to_owned(), Arc::clone(&disk))]));
    (disk, Server::start(shelf, Encryption::Plain))
}

#[test]
fn an_unknown_option_and_one_too_long_are_refused_and_the_haggle_goes_on() {
    let (_disk, server) = server();
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.option(4711, b"what").last().unwrap().0, answer::UNSUPPORTED);
    assert_eq!(raw.option(option::LIST, &vec![0; 100_000]).last().unwrap().0, answer::TOO_BIG);
    assert_eq!(raw.option(option::GO, b"\xff\xff\xff\xff").last().unwrap().0, answer::INVALID);
    assert_eq!(raw.option(option::STARTTLS, b"").last().unwrap().0, answer::POLICY);
    assert_eq!(raw.go("no such"), answer::UNKNOWN);
    assert_eq!(raw.go("a"), answer::ACK);
}

#[test]
fn requests_that_make_no_sense_are_answered_and_the_connection_stays() {
    let (disk, server) = server();
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.go("a"), answer::ACK);
    let (invalid, no_space) = (22, 28);
    assert_eq!(raw.request(command::READ, 0, SIZE - 1, 2, b""), invalid, "past the end");
    assert_eq!(raw.request(command::READ, 0, u64::MAX, 2, b""), invalid, "past all numbers");
    assert_eq!(raw.request(command::READ, 1 << 9, 0, 2, b""), invalid, "a flag that does not exist");
    assert_eq!(raw.request(command::WRITE, 0, SIZE - 1, 2, b"xy"), no_space, "a write past the end");
    assert_eq!(raw.request(command::BLOCK_STATUS, 0, 0, 4096, b""), invalid, "a context that was not agreed on");
    assert_eq!(raw.request(99, 0, 0, 0, b""), invalid, "a command that does not exist");
    assert_eq!(raw.request(command::WRITE, flag::FUA, 8, 3, b"abc"), 0);
    assert_eq!(raw.request(command::READ, 0, 7, 5, b""), 0);
    assert_eq!(raw.take(5), b"\0abc\0");
    assert_eq!(disk.bytes(SIZE - 1, 1), [0], "the refused write left nothing");
}

#[test]
fn requests_are_judged_by_the_size_the_disk_has_when_they_come() {
    let (disk, server) = server();
    let (mut plain, mut structured) = (Raw::connect(&server), Raw::connect(&server));
    assert_eq!(plain.go("a"), answer::ACK);
    assert_eq!(structured.option(option::STRUCTURED_REPLY, b"").last().unwrap().0, answer::ACK);
    assert_eq!(structured.go("a"), answer::ACK);
    let (invalid, no_space) = (22, 28);
    // Grown: who is connected may use what came, and who comes is told.
    disk.size.store(2 * SIZE, Ordering::Relaxed);
    assert_eq!(plain.request(command::WRITE, 0, 2 * SIZE - 2, 2, b"xy"), 0);
    let mut next = Raw::connect(&server);
    let told = next.option(option::GO, b"\0\0\0\x01a\0\0");
    let export =
        told.iter().find(|(kind, data)| *kind == answer::INFO && data[..2] == wire::info::EXPORT.to_be_bytes());
    assert_eq!(export.unwrap().1[2..10], (2 * SIZE).to_be_bytes());
    // Shrunk: what is past the end is refused at once, and so is nothing else.
    disk.size.store(SIZE / 2, Ordering::Relaxed);
    for raw in [&mut plain, &mut next] {
        assert_eq!(raw.request(command::WRITE, 0, SIZE / 2 - 1, 2, b"xy"), no_space);
        assert_eq!(raw.request(command::WRITE_ZEROES, 0, SIZE / 2, 512, b""), no_space);
        assert_eq!(raw.request(command::READ, 0, SIZE / 2, 1, b""), invalid);
        assert_eq!(raw.request(command::TRIM, 0, 0, SIZE as u32, b""), invalid);
        assert_eq!(raw.request(command::WRITE, 0, SIZE / 2 - 2, 2, b"xy"), 0);
    }
    // Where replies have texts, they say where the end is.
    structured.send(&wire::REQUEST_MAGIC.to_be_bytes());
    structured.send(&[0, 0, 0, 0]);
    structured.send(&[0; 8]);
    structured.send(&(SIZE / 2).to_be_bytes());
    structured.send(&1u32.to_be_bytes());
    let head = structured.take(20);
    let text = structured.take(u32::from_be_bytes(head[16..20].try_into().unwrap()) as usize);
    assert_eq!(text[..4], 22u32.to_be_bytes());
    assert!(String::from_utf8_lossy(&text[6..]).contains(&format!("ends at {}", SIZE / 2)), "{text:?}");
}

#[test]
fn what_is_no_request_ends_that_connection_alone() {
    let (_disk, server) = server();
    let (mut good, mut bad) = (Raw::connect(&server), Raw::connect(&server));
    assert_eq!(good.go("a"), answer::ACK);
    assert_eq!(bad.go("a"), answer::ACK);
    bad.send(&[0x55; 28]);
    assert!(bad.is_closed());
    assert_eq!(good.request(command::FLUSH, 0, 0, 0, b""), 0);
}

#[test]
fn a_payload_over_the_limit_ends_the_connection_before_memory_is_taken() {
    let (_disk, server) = server();
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.go("a"), answer::ACK);
    raw.send(&wire::REQUEST_MAGIC.to_be_bytes());
    raw.send(&[0, 0, 0, 1]);
    raw.send(&[0; 16]);
    raw.send(&u32::MAX.to_be_bytes());
    assert!(raw.is_closed());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_write_writes_nothing() {
    let (disk, server) = server();
    let mut raw = Raw::connect(&server);
    assert_eq!(raw.go("a"), answer::ACK);
    raw.send(&wire::REQUEST_MAGIC.to_be_bytes());
    raw.send(&[0, 0, 0, 1]);
    raw.send(&[0; 16]);
    raw.send(&4096u32.to_be_bytes());
    raw.send(&[9; 4000]);
    drop(raw);
    // A request on another connection is served after the server has seen that one end or not; either way no part of
    // the torn write may be there.
    let mut other = Raw::connect(&server);
    assert_eq!(other.go("a"), answer::ACK);
    assert_eq!(other.request(command::FLUSH, 0, 0, 0, b""), 0);
    assert!(disk.bytes(0, 4096) == vec![0; 4096]);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = wire::decode_wanted(&bytes);
        let _ = wire::decode_contexts(&bytes);
        let _ = wire::decode_request(wire::Framing::Simple, &bytes);
        let _ = wire::decode_request(wire::Framing::Extended, &bytes);
    }

    #[test]
    fn a_request_header_survives_its_encoding(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) {
        let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        let request = wire::decode_request(wire::Framing::Structured, &bytes).unwrap();
        prop_assert_eq!(request, wire::Request { flags, command, cookie, offset, len: u64::from(len) });
    }
}
