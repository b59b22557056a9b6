//! Messages against bytes written by hand, on machines whose lowest byte comes first.

use super::*;

#[cfg(target_endian = "little")]
#[test]
fn a_request_is_what_the_kernel_reads() {
    let inner = Attributes::default().u32(1, 7);
    let wanted = Attributes::default().text(2, "nbd").u64(5, 0x0102_0304_0506_0708).nested(7, &inner).text(10, "ab:c");
    #[rustfmt::skip]
    let bytes = [
        72, 0, 0, 0,   0x1b, 0,   5, 0,   9, 0, 0, 0,   0, 0, 0, 0,
        3, 1, 0, 0,
        8, 0, 2, 0,    b'n', b'b', b'd', 0,
        12, 0, 5, 0,   8, 7, 6, 5, 4, 3, 2, 1,
        12, 0, 7, 0x80,   8, 0, 1, 0,   7, 0, 0, 0,
        9, 0, 10, 0,   b'a', b'b', b':', b'c', 0,   0, 0, 0,
    ];
    let mut bytes = bytes.to_vec();
    bytes[0] = bytes.len() as u8;
    assert_eq!(request(0x1b, 9, 3, &wanted), bytes);
}

#[cfg(target_endian = "little")]
#[test]
fn what_the_kernel_says_is_read() {
    // Its answer, with attributes; then that all went well, with the header of the request; then of another request.
    #[rustfmt::skip]
    let bytes = [
        28, 0, 0, 0,   0x1b, 0,   0, 0,   9, 0, 0, 0,   1, 2, 3, 4,
        1, 1, 0, 0,
        8, 0, 1, 0,    3, 0, 0, 0,
        36, 0, 0, 0,   2, 0,      0, 1,   9, 0, 0, 0,   1, 2, 3, 4,
        0, 0, 0, 0,    48, 0, 0, 0,   0x1b, 0,   5, 0,   9, 0, 0, 0,   0, 0, 0, 0,
        36, 0, 0, 0,   2, 0,      0, 1,   8, 0, 0, 0,   1, 2, 3, 4,
        0xf0, 0xff, 0xff, 0xff,   48, 0, 0, 0,   0x1b, 0,   5, 0,   8, 0, 0, 0,   0, 0, 0, 0,
    ];
    let answer = vec![8, 0, 1, 0, 3, 0, 0, 0];
    assert_eq!(said(&bytes, 9).unwrap(), [Said::Answer(answer.clone()), Said::Ended(Ok(()))]);
    assert_eq!(said(&bytes, 8).unwrap(), [Said::Ended(Err(16))]);
    assert_eq!(attribute(&answer, 1).and_then(u32_of), Some(3));
    assert_eq!(attribute(&answer, 2), None);
}

#[test]
fn what_is_cut_off_or_says_more_than_there_is_gives_nothing() {
    let whole = request(1, 2, 3, &Attributes::default().u32(1, 2).text(2, "abc"));
    assert!(said(&whole, 2).is_some());
    for cut in 1..whole.len() {
        assert_eq!(said(&whole[..cut], 2), None, "{cut}");
    }
    let inner = &whole[20..];
    assert_eq!(attributes(inner).map(|all| all.len()), Some(2));
    for cut in (1..inner.len()).filter(|cut| *cut != 8) {
        assert_eq!(attributes(&inner[..cut]), None, "{cut}");
    }
    // Lengths that are too short to be, as zero: no endless loop.
    assert_eq!(said(&[0; 64], 0), None);
    assert_eq!(attributes(&[0; 64]), None);
    let least = i32::MIN.to_ne_bytes();
    let mut bytes = request(2, 2, 0, &Attributes::default());
    bytes[16..20].copy_from_slice(&least);
    assert_eq!(said(&bytes, 2), None);
}
