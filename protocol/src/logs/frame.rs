//! What stands in front of a batch in a file, so that it can be found, also behind damage:
//! `8 bytes of magic ‖ u32 big endian length of the payload ‖ 4 bytes of checksum of both`.
//!
//! It tells where a batch may be; whether there is one, its own checksums tell. It knows no files: a caller hands in
//! the bytes.

use super::MAX_BATCH;
use crate::id::Digest;

/// Bytes in front of each batch.
pub const HEAD: usize = 16;

/// Begins and ends with what neither text nor zstd writes often.
const MAGIC: [u8; 8] = *b"\xb5SLog\x01\r\n";

const CHECKED: usize = 12;

/// Returns what is to stand in front of a payload of `length` bytes, which are at most [`MAX_BATCH`].
#[must_use]
pub fn head(length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length.min(MAX_BATCH)).unwrap_or(u32::MAX);
    let mut head = [0; HEAD];
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    rest[..4].copy_from_slice(&length.to_be_bytes());
    let sum = sum(&head[..CHECKED]);
    head[CHECKED..].copy_from_slice(&sum);
    head
}

/// Returns the length of the payload that follows, if `bytes` begin with a head.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD>()?;
    let (checked, found) = head.split_at(CHECKED);
    let (magic, length) = checked.split_at(MAGIC.len());
    if magic != MAGIC || found != sum(checked) {
        return None;
    }
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    (length <= MAX_BATCH).then_some(length)
}

/// Returns the place of the first whole head in `bytes`.
pub fn find(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == MAGIC[0]) {
        if length(bytes.get(from + at..)?).is_some() {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    let digest = Digest::of(bytes);
    let mut sum = [0; 4];
    sum.copy_from_slice(&digest.as_bytes()[..4]);
    sum
}
