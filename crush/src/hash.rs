//! The two hashes that placement rests on, both by Robert Jenkins: one over a few integers, one over a name's bytes.
//!
//! Nothing here depends on a map. The numbers are fixed for ever: a different hash is a different cluster.

/// Where every integer hash starts.
pub(crate) const SEED: u32 = 1_315_423_911;
/// Two more words that are mixed in, so that short inputs stir as much as long ones.
pub(crate) const PAD_X: u32 = 231_232;
/// See [`PAD_X`].
pub(crate) const PAD_Y: u32 = 1_232;

/// Stirs three words; each bit of the input reaches about half of the output's bits.
#[inline(always)]
fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 13);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 8);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 13);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 12);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 16);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 5);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 3);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 10);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 15);
}

/// `rjenkins1` of one integer.
pub fn hash1(a: u32) -> u32 {
    let (mut a, mut b, mut hash) = (a, a, SEED ^ a);
    let (mut x, mut y) = (PAD_X, PAD_Y);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    hash
}

/// `rjenkins1` of two integers: whether a reweighted device keeps an input, and the seed of a pg.
#[inline]
pub fn hash2(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut hash) = (a, b, SEED ^ a ^ b);
    let (mut x, mut y) = (PAD_X, PAD_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut x, &mut a, &mut hash);
    mix(&mut b, &mut y, &mut hash);
    hash
}

/// `rjenkins1` of three integers: the draw of an item (input, item, attempt).
#[inline]
pub fn hash3(a: u32, b: u32, c: u32) -> u32 {
    let (mut a, mut b, mut c, mut hash) = (a, b, c, SEED ^ a ^ b ^ c);
    let (mut x, mut y) = (PAD_X, PAD_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut c, &mut hash);
    hash
}

/// `rjenkins1` of four integers: the draws of list and tree buckets.
#[inline]
pub fn hash4(a: u32, b: u32, c: u32, d: u32) -> u32 {
    let (mut a, mut b, mut c, mut d, mut hash) = (a, b, c, d, SEED ^ a ^ b ^ c ^ d);
    let (mut x, mut y) = (PAD_X, PAD_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut a, &mut x, &mut hash);
    mix(&mut y, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut d, &mut hash);
    hash
}

/// `rjenkins1` of five integers.
pub fn hash5(a: u32, b: u32, c: u32, d: u32, e: u32) -> u32 {
    let (mut a, mut b, mut c, mut d, mut e, mut hash) = (a, b, c, d, e, SEED ^ a ^ b ^ c ^ d ^ e);
    let (mut x, mut y) = (PAD_X, PAD_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut e, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut c, &mut hash);
    mix(&mut d, &mut x, &mut hash);
    mix(&mut y, &mut e, &mut hash);
    hash
}

/// The hash of a name (Ceph's `rjenkins` string hash): it decides the pg of an object.
pub fn hash_bytes(name: &[u8]) -> u32 {
    hash_parts(&[name])
}

/// [`hash_bytes`] of several slices laid end to end, without laying them so.
///
/// The name is eaten twelve bytes at a time as three little-endian words. In the last block the lowest byte of the third
/// word is left to the length.
pub fn hash_parts(parts: &[&[u8]]) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |word, &byte| word << 8 | u32::from(byte));
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, 0_u32);
    let mut block = [0_u8; 12];
    let (mut filled, mut total) = (0, 0_u32);
    for part in parts {
        // Ceph counts the length in 32 bits too.
        total = total.wrapping_add(part.len() as u32);
        let mut rest = *part;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(12 - filled));
            block[filled..filled + head.len()].copy_from_slice(head);
            filled += head.len();
            rest = tail;
            if filled == 12 {
                a = a.wrapping_add(word(&block[0..4]));
                b = b.wrapping_add(word(&block[4..8]));
                c = c.wrapping_add(word(&block[8..12]));
                mix(&mut a, &mut b, &mut c);
                filled = 0;
            }
        }
    }
    block[filled..].fill(0);
    a = a.wrapping_add(word(&block[0..4]));
    b = b.wrapping_add(word(&block[4..8]));
    c = c.wrapping_add(total).wrapping_add(word(&block[8..11]) << 8);
    mix(&mut a, &mut b, &mut c);
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_ceph_hashes_them() {
        // From the object vectors.
        assert_eq!(hash_bytes(b""), 0xbd49_d10d);
        assert_eq!(hash_bytes(b" "), 0x9e74_2677);
        assert_eq!(hash_bytes(b"a"), 0x29ee_c818);
    }

    #[test]
    fn parts_hash_as_their_concatenation() {
        let name: Vec<u8> = (0..60_u8).map(|i| i.wrapping_mul(7)).collect();
        for end in 0..name.len() {
            let whole = hash_bytes(&name[..end]);
            for cut in 0..=end {
                assert_eq!(hash_parts(&[&name[..cut], &[], &name[cut..end]]), whole, "{cut} of {end}");
            }
        }
    }

    #[test]
    fn a_bit_of_any_argument_changes_about_half_of_the_bits() {
        type Hash = fn([u32; 5]) -> u32;
        let hashes: [(usize, Hash); 5] = [
            (1, |v| hash1(v[0])),
            (2, |v| hash2(v[0], v[1])),
            (3, |v| hash3(v[0], v[1], v[2])),
            (4, |v| hash4(v[0], v[1], v[2], v[3])),
            (5, |v| hash5(v[0], v[1], v[2], v[3], v[4])),
        ];
        for (arity, hash) in hashes {
            for argument in 0..arity {
                let mut flipped = 0;
                for n in 0..1024_u32 {
                    let mut v = [n, n + 1, n ^ 0xffff, n << 3, !n];
                    let before = hash(v);
                    v[argument] ^= 1 << (n % 32);
                    flipped += (before ^ hash(v)).count_ones();
                }
                // 32768 bits; the deviation of a fair coin is 90.
                assert!((15000..17800).contains(&flipped), "hash{arity}, argument {argument}: {flipped}");
            }
        }
    }
}
