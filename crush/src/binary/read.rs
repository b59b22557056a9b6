//! A cursor over bytes that come from anywhere: little-endian numbers, counted lists, names.

use super::BinaryError;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], BinaryError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        match taken {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => Err(BinaryError::Truncated { at: self.bytes.len(), what }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], BinaryError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, BinaryError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, BinaryError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, BinaryError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, BinaryError> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, BinaryError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// A count of things of at least `size` bytes each: no more than the bytes left can hold, so that room for all of
    /// them may be reserved.
    pub(super) fn count(&mut self, size: usize, what: &'static str) -> Result<usize, BinaryError> {
        let count = self.u32(what)? as usize;
        self.fits(count, size, what)?;
        Ok(count)
    }

    /// Checks that the bytes left can hold `count` things of `size` bytes.
    pub(super) fn fits(&self, count: usize, size: usize, what: &'static str) -> Result<(), BinaryError> {
        match count.checked_mul(size).filter(|needed| *needed <= self.left()) {
            Some(_) => Ok(()),
            None => Err(BinaryError::Truncated { at: self.bytes.len(), what }),
        }
    }

    /// `count` signed numbers. The count must have been checked.
    pub(super) fn i32s(&mut self, count: usize, what: &'static str) -> Result<Vec<i32>, BinaryError> {
        (0..count).map(|_| self.i32(what)).collect()
    }

    /// `count` numbers. The count must have been checked.
    pub(super) fn u32s(&mut self, count: usize, what: &'static str) -> Result<Vec<u32>, BinaryError> {
        (0..count).map(|_| self.u32(what)).collect()
    }

    /// A text of `len` bytes that can be shown.
    pub(super) fn text(&mut self, len: usize, what: &'static str) -> Result<String, BinaryError> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(len, what)?).ok();
        let shown = text.filter(|text| !text.chars().any(char::is_control));
        shown.map(str::to_owned).ok_or(BinaryError::Name { at, what })
    }
}
