//! The checksum at a frame's end, by which damage on the way is seen: `…,"sum":"<32 hexadecimal digits>"}`.
//!
//! It guards against accidents, not against anybody: whoever can write a frame can write its checksum. TCP's own has
//! 16 bits and ends at every broker; one flipped bit in a sequence number, an epoch or an id is enough to
//! lose an order, or to run another one. A frame without a checksum is read as it is.

use crate::{id::Digest, limits::MAX_FRAME};

/// What stands before the digits, and after them.
const BEFORE: &str = ",\"sum\":\"";
const AFTER: &str = "\"}";

/// Digits of the digest that are kept: 128 bits.
const DIGITS: usize = 32;

/// The key of the checksum.
pub(crate) const KEY: &str = "sum";

/// Appends the checksum to an encoded frame. One that would become too large stays as it is.
#[must_use]
pub fn append(mut frame: Vec<u8>) -> Vec<u8> {
    let whole = frame.len() + BEFORE.len() + DIGITS + AFTER.len() - 1;
    if frame.last() != Some(&b'}') || whole > MAX_FRAME {
        return frame;
    }
    frame.pop();
    let sum = sum(&frame);
    frame.extend_from_slice(BEFORE.as_bytes());
    frame.extend_from_slice(sum.as_bytes());
    frame.extend_from_slice(AFTER.as_bytes());
    frame
}

/// Tells whether `frame` ends with the checksum of its bytes.
pub fn is_sound(frame: &[u8]) -> bool {
    let length = BEFORE.len() + DIGITS + AFTER.len();
    let Some(end) = frame.len().checked_sub(length) else {
        return false;
    };
    let (covered, found) = frame.split_at(end);
    found == format!("{BEFORE}{}{AFTER}", sum(covered)).as_bytes()
}

fn sum(bytes: &[u8]) -> String {
    let mut digits = Digest::of(bytes).to_string();
    digits.truncate(DIGITS);
    digits
}
