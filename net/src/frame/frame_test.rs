//! Frames: any cut of the stream gives the same frames; any damage ends it with the right reason; large data is
//! aligned; the bytes of version 1 stay what they are.

use std::io::IoSlice;

use proptest::prelude::*;

use super::encode::{SLICES, seal};
use super::*;

fn frame(kind: Kind, id: u64, meta: &[u8], data: &[u8]) -> Frame {
    let header = Header { method: 7, room: 9, priority: Priority::Low, ..Header::bare(kind, id) };
    let header = seal(header, meta, data, None);
    Frame { header, meta: Bytes::copy_from_slice(meta), data: Bytes::copy_from_slice(data) }
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for f in frames {
        encoder.push(&f.header, &f.meta, f.data.clone());
    }
    drain(&mut encoder, usize::MAX)
}

fn drain(encoder: &mut Encoder, most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while encoder.pending() > 0 {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = encoder.slices(&mut slices);
        let all: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        let take = all.len().min(most);
        out.extend_from_slice(&all[..take]);
        encoder.advance(take);
    }
    out
}

fn decode(bytes: &[u8], cuts: &[usize], limits: Limits) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(limits);
    let mut frames = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let to = cut.clamp(at, bytes.len());
        decoder.feed(&bytes[at..to]);
        at = to;
        loop {
            match decoder.next(&mut |_| true) {
                Ok(Some(f)) => frames.push(f),
                Ok(None) => break,
                Err(e) => return (frames, Some(e)),
            }
        }
    }
    (frames, None)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let sizes = prop_oneof![Just(0usize), 1usize..200, Just(8192), Just(8193), 30_000usize..70_000];
    (0u8..3, any::<u64>(), 0usize..300, sizes, any::<u8>()).prop_map(|(kind, id, meta, data, fill)| {
        let kind = [Kind::Request, Kind::Reply, Kind::Notice][usize::from(kind)];
        frame(kind, id, &vec![fill; meta], &vec![fill ^ 0xff; data])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_gives_the_same_frames(
        frames in prop::collection::vec(any_frame(), 1..8),
        mut cuts in prop::collection::vec(0usize..200_000, 0..20),
        most in 1usize..100_000,
    ) {
        let bytes = bytes_of(&frames);
        let mut encoder = Encoder::default();
        frames.iter().for_each(|f| encoder.push(&f.header, &f.meta, f.data.clone()));
        prop_assert_eq!(&drain(&mut encoder, most), &bytes);
        cuts.sort_unstable();
        let (back, error) = decode(&bytes, &cuts, Limits::default());
        prop_assert_eq!(error, None);
        for f in &back {
            if f.data.len() >= ALIGNED_FROM {
                prop_assert_eq!(f.data.as_ptr().align_offset(ALIGNMENT), 0);
            }
        }
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn any_flipped_bit_is_noticed(f in any_frame(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = bytes_of(std::slice::from_ref(&f));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (frames, error) = decode(&bytes, &[], Limits::default());
        prop_assert!(frames.is_empty() && error.is_some(), "at {}", at);
    }

    #[test]
    fn any_noise_is_refused_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (frames, _) = decode(&bytes, &[], Limits::default());
        prop_assert!(frames.is_empty());
    }
}

#[test]
fn damage_has_a_name() {
    let whole = bytes_of(&[frame(Kind::Request, 1, b"meta", &[1; 100])]);
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        decode(&bytes, &[], Limits::default()).1
    };
    let resealed = |at: usize, value: u8| {
        broken(&|b: &mut Vec<u8>| {
            b[at] = value;
            let crc = crc32fast::hash(&b[..40]).to_le_bytes();
            b[40..44].copy_from_slice(&crc);
        })
    };
    assert_eq!(broken(&|_| ()), None);
    assert_eq!(broken(&|b| b[..4].copy_from_slice(b"GET ")), Some(FrameError::Magic(u32::from_be_bytes(*b"GET "))));
    assert_eq!(broken(&|b| b[4] = 9), Some(FrameError::Version(9)));
    assert_eq!(broken(&|b| b[20] ^= 1), Some(FrameError::HeaderChecksum));
    assert_eq!(broken(&|b| b[HEADER] ^= 1), Some(FrameError::MetaChecksum));
    assert_eq!(broken(&|b| b[HEADER + 4] ^= 1), Some(FrameError::DataChecksum));
    assert_eq!(resealed(5, 0), Some(FrameError::Kind(0)));
    assert_eq!(resealed(6, 3), Some(FrameError::Field(3)));
    assert_eq!(resealed(7, 1), Some(FrameError::Field(1)));
    let limits = Limits { meta: 3, data: 99 };
    assert_eq!(decode(&whole, &[], limits).1, Some(FrameError::MetaTooLarge { size: 4, limit: 3 }));
    let limits = Limits { meta: 4, data: 99 };
    assert_eq!(decode(&whole, &[], limits).1, Some(FrameError::DataTooLarge { size: 100, limit: 99 }));
}

#[test]
fn a_frame_over_the_limit_is_refused_before_its_bytes_are_waited_for() {
    let header = Header { data_len: u32::MAX, ..Header::bare(Kind::Request, 1) };
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(&header.encode());
    assert!(matches!(decoder.next(&mut |_| true), Err(FrameError::DataTooLarge { .. })));
    decoder.feed(&bytes_of(&[frame(Kind::Ping, 1, b"", b"")]));
    assert!(decoder.next(&mut |_| true).is_err(), "nothing comes out of a broken stream");
}

#[test]
fn nothing_is_allocated_before_admission() {
    let big = frame(Kind::Request, 1, b"m", &vec![7; 8 << 20]);
    let bytes = bytes_of(&[big.clone(), frame(Kind::Ping, 2, b"", b"")]);
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(&bytes[..HEADER + 1]);
    for _ in 0..3 {
        assert_eq!(decoder.next(&mut |h| h.data_len == 0).unwrap(), None);
        assert!(matches!(decoder.state, decode::State::Asking(_)));
    }
    let mut asked = 0;
    assert_eq!(
        decoder
            .next(&mut |_| {
                asked += 1;
                true
            })
            .unwrap(),
        None
    );
    decoder.feed(&bytes[HEADER + 1..]);
    assert_eq!(
        decoder
            .next(&mut |_| {
                asked += 1;
                true
            })
            .unwrap(),
        Some(big)
    );
    assert_eq!(asked, 1);
    assert!(decoder.next(&mut |_| true).unwrap().is_some());
    assert!(!decoder.within_frame());
}

#[test]
fn a_checksum_known_already_is_not_computed_again() {
    let header = seal(Header::bare(Kind::Reply, 1), b"", b"data", Some(checksum(b"data")));
    assert_eq!(header.data_crc, checksum(b"data"));
    let wrong = seal(Header::bare(Kind::Reply, 1), b"", b"data", Some(1));
    let mut encoder = Encoder::default();
    encoder.push(&wrong, b"", Bytes::from_static(b"data"));
    let bytes = drain(&mut encoder, usize::MAX);
    assert_eq!(
        decode(&bytes, &[], Limits::default()).1,
        Some(FrameError::DataChecksum),
        "it is believed, then checked"
    );
}

/// Written anew with `NACRE_BLESS=1`, when a version is added; bytes of a version that was released never change.
#[test]
fn the_bytes_of_version_1_read_as_ever() {
    let frames = [
        frame(Kind::Hello, 0, b"\x08\x01", b""),
        frame(Kind::Request, 1 << 33 | 5, b"what", b"payload"),
        frame(Kind::Reply, 1 << 33 | 5, b"", &[0xa5; 5000]),
        frame(Kind::Notice, 0, b"n", b""),
        frame(Kind::Ping, 3, b"", b""),
        frame(Kind::Pong, 3, b"", b""),
        frame(Kind::Bye, 0, b"stopping", b""),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/net/frames-1.bin");
    if std::env::var_os("NACRE_BLESS").is_some() {
        std::fs::write(path, bytes_of(&frames)).unwrap();
    }
    let stored = std::fs::read(path).expect("fixtures/net/frames-1.bin");
    assert_eq!(decode(&stored, &[], Limits::default()), (frames.to_vec(), None));
}

#[test]
fn large_data_reuses_memory_that_nobody_has_any_more() {
    let bytes = |id: u64, len: usize| bytes_of(&[frame(Kind::Request, id, b"", &vec![id as u8; len])]);
    let mut decoder = Decoder::new(Limits::default());
    let mut read = |id: u64, len: usize| {
        decoder.feed(&bytes(id, len));
        let data = decoder.next(&mut |_| true).unwrap().unwrap().data;
        assert!(data.len() == len && data.iter().all(|byte| *byte == id as u8));
        assert_eq!(data.as_ptr() as usize % ALIGNMENT, 0);
        data
    };
    let first = read(1, 1 << 20);
    let part = first.slice(100..200);
    let place = first.as_ptr();
    drop(first);
    let second = read(2, 1 << 20);
    assert_ne!(second.as_ptr(), place, "a part of it is still in somebody's hands");
    drop(part);
    let third = read(3, (1 << 20) - 1);
    assert_eq!(third.as_ptr(), place);
    drop(third);
    assert_ne!(read(4, ALIGNED_FROM).as_ptr(), place, "a little does not hold on to much");
}
