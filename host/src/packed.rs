//! Numbers, texts and lists, one behind the other: how one process tells another what it knows.
//!
//! Numbers have their bytes in little-endian order, a text or a list is preceded by its length. Whoever reads knows what is
//! written: there are no names and no types. What is cut off or makes no sense is an error, whoever has written it.

use std::fmt;
use std::str;

/// What was read is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes behind what is there.
pub(crate) trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, number: u8) {
        self.put(&[number]);
    }

    fn put_u16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
    }

    fn put_u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn put_flag(&mut self, flag: bool) {
        self.put_u8(flag.into());
    }

    /// How many follow. Where that is 2³² or more, all of it together is more than whoever sends it takes, and it is not read.
    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A list of bytes.
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.put(bytes);
    }

    fn put_text(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    /// Something that may not be there.
    fn put_option<T>(&mut self, some: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_flag(some.is_some());
        if let Some(some) = some {
            put(self, some);
        }
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads what was written, from the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let cut_off = || Unreadable(format!("it ends {} bytes too early", count - self.0.len()));
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        Ok(self.take(N)?.try_into().expect("so many were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unreadable> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Unreadable> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Unreadable(format!("a flag is {other}: expected 0 or 1"))),
        }
    }

    pub(crate) fn count(&mut self) -> Result<usize, Unreadable> {
        Ok(self.u32()? as usize)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let count = self.count()?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Unreadable> {
        str::from_utf8(self.bytes()?).map_err(|error| Unreadable(format!("a text is not UTF-8: {error}")))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Something for each of a list.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        // Nothing is allocated for a number that nothing follows.
        let mut list = Vec::new();
        for _ in 0..self.count()? {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing more is expected.
    pub(crate) fn end(self) -> Result<(), Unreadable> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(Unreadable(format!("there are {more} bytes more than expected"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_is_an_error() {
        let mut bytes = Vec::new();
        bytes.put_u16(0x1234);
        bytes.put_text("ä");
        bytes.put_option(Some(7), Vec::put_u64);
        bytes.put_option(None, Vec::put_u32);
        bytes.put_count(2);
        bytes.put(b"xy");
        type All = (u16, String, Option<u64>, Option<u32>, Vec<u8>);
        fn read(bytes: &[u8]) -> Result<All, Unreadable> {
            let mut reader = Reader::new(bytes);
            let (number, text) = (reader.u16()?, reader.text()?.to_owned());
            let read =
                (number, text, reader.option(Reader::u64)?, reader.option(Reader::u32)?, reader.list(Reader::u8)?);
            reader.end().map(|()| read)
        }
        assert_eq!(read(&bytes), Ok((0x1234, "ä".to_owned(), Some(7), None, b"xy".to_vec())));
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).unwrap_err().0.contains("too early"), "{end}");
        }
        bytes.push(0);
        assert!(read(&bytes).unwrap_err().0.contains("1 bytes more"));
        assert!(Reader::new(&[2]).flag().is_err());
        assert!(Reader::new(&[1, 0, 0, 0, 0xff]).text().is_err());
        assert!(Reader::new(&[0xff; 4]).list(Reader::u8).is_err());
    }
}
