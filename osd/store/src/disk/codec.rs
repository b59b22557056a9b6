//! Bytes in and out for every format of the store: bounded, never panics, never trusts a length.

use bytes::Bytes;

use crate::error::StoreError;

/// Appends to a buffer.
pub(crate) trait Put {
    fn bytes(&mut self, bytes: &[u8]);
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    /// Little-endian base 128: most numbers in the store are small.
    fn var(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8((value as u8) | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }
    /// Length, then bytes.
    fn blob(&mut self, bytes: &[u8]) {
        self.var(bytes.len() as u64);
        self.bytes(bytes);
    }
}

impl Put for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The bytes ended early or hold what no writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Malformed {
    pub(crate) fn of(self, what: impl Into<String>) -> StoreError {
        StoreError::CorruptMetadata { what: what.into() }
    }
}

/// Reads from the front of shared bytes; blobs share them.
#[derive(Clone)]
pub(crate) struct Take {
    bytes: Bytes,
}

impl Take {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Take { bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.bytes.len() { Err(Malformed) } else { Ok(self.bytes.split_to(len)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = self.bytes.first_chunk::<N>().copied().ok_or(Malformed)?;
        let _ = self.take(N)?;
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn var(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Malformed);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn var32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.var()?).map_err(|_| Malformed)
    }

    pub(crate) fn var16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.var()?).map_err(|_| Malformed)
    }

    /// A count of things that take at least `least` bytes each, so that it can be trusted for an allocation.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.var()?).map_err(|_| Malformed)?;
        if count.checked_mul(least).is_none_or(|need| need > self.left()) { Err(Malformed) } else { Ok(count) }
    }

    pub(crate) fn blob(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::try_from(self.var()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_overlong_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            bytes.var(value);
            let mut take = Take::new(bytes.into());
            assert_eq!(take.var(), Ok(value));
            assert_eq!(take.end(), Ok(()));
        }
        assert_eq!(Take::new(Bytes::from_static(&[0xff; 11])).var(), Err(Malformed));
        assert_eq!(Take::new(Bytes::from_static(&[0x80])).var(), Err(Malformed));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let mut bytes = Vec::new();
        bytes.var(u64::MAX);
        assert_eq!(Take::new(bytes.clone().into()).blob(), Err(Malformed));
        assert_eq!(Take::new(bytes.into()).count(1), Err(Malformed));
    }
}
