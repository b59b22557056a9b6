//! Any bytes, cut anywhere: frames or an error; frames that came out can be written and read again.

#![no_main]

use std::io::IoSlice;

use libfuzzer_sys::fuzz_target;
use nacre_net::frame::encode::SLICES;
use nacre_net::frame::{ALIGNED_FROM, ALIGNMENT, Decoder, Encoder, Frame, Limits};

fn frames(mut input: &[u8], cut: usize) -> Vec<Frame> {
    let mut decoder = Decoder::new(Limits { meta: 4096, data: 1 << 20 });
    let mut frames = Vec::new();
    while !input.is_empty() {
        let (now, later) = input.split_at(cut.clamp(1, input.len()));
        decoder.feed(now);
        input = later;
        loop {
            match decoder.next(&mut |_| true) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
    }
    frames
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first() else { return };
    let found = frames(input, usize::from(*cut));
    let mut encoder = Encoder::default();
    for frame in &found {
        assert!(frame.data.len() < ALIGNED_FROM || frame.data.as_ptr().align_offset(ALIGNMENT) == 0);
        encoder.push(&frame.header, &frame.meta, frame.data.clone());
    }
    let mut bytes = Vec::new();
    while encoder.pending() > 0 {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = encoder.slices(&mut slices);
        let some: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        bytes.extend_from_slice(&some);
        encoder.advance(some.len());
    }
    assert_eq!(frames(&bytes, usize::MAX), found);
    assert_eq!(&input[..bytes.len()], bytes);
});
