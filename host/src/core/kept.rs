//! Bytes from a client that are kept for a time: the start of a packet, or packets that wait. Where there may be a password
//! among them, they are cleared before their memory is given back.

use std::ops::Deref;

use zeroize::Zeroize;

use super::inbound::{AUTH, CONNECT};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KeptBytes {
    bytes: Vec<u8>,
    has_secrets: bool,
}

impl KeptBytes {
    /// A copy. What begins with CONNECT or AUTH has secrets in any case.
    pub(super) fn new(bytes: &[u8], has_secrets: bool) -> Self {
        Self { bytes: bytes.to_vec(), has_secrets: has_secrets || begins_with_secrets(bytes) }
    }

    pub(super) fn has_secrets(&self) -> bool {
        self.has_secrets
    }

    /// The memory that they take.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds bytes; where there is no room for them, it is made for at least `capacity` bytes in all.
    pub(super) fn extend(&mut self, more: &[u8], capacity: usize) {
        let len = self.bytes.len() + more.len();
        if len > self.bytes.capacity() {
            // Not by growing, which would leave a copy of them behind.
            let mut larger = Vec::with_capacity(len.max(capacity));
            larger.extend_from_slice(&self.bytes);
            let mut old = std::mem::replace(&mut self.bytes, larger);
            if self.has_secrets {
                old.zeroize();
            }
        }
        self.bytes.extend_from_slice(more);
    }
}

impl Deref for KeptBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        if self.has_secrets {
            self.bytes.zeroize();
        }
    }
}

/// Whether a packet may have a password or Authentication Data, as its first byte says.
fn begins_with_secrets(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| matches!(first >> 4, CONNECT | AUTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_and_room_is_made_for_all_that_will_come() {
        let mut kept = KeptBytes::new(&[0x10, 40], false);
        assert!(kept.has_secrets());
        kept.extend(&[7; 10], 42);
        assert!(kept.capacity() >= 42);
        let place = kept.as_ptr();
        kept.extend(&[8; 30], 0);
        assert_eq!((kept.as_ptr(), kept.len()), (place, 42));
        kept.extend(&[9; 100], 0);
        assert_eq!((&kept[..3], &kept[41..43]), (&[0x10, 40, 7][..], &[8, 9][..]));
        assert!(!KeptBytes::new(&[0x30, 0], false).has_secrets());
        assert!(KeptBytes::new(&[0x30, 0], true).has_secrets() && KeptBytes::new(&[0xF0, 0], false).has_secrets());
    }
}
