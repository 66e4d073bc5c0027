//! Small readers of bytes that the formats share.

/// How many digits a number may have.
pub(super) type Digits = std::ops::RangeInclusive<usize>;

/// Reads a number of so many decimal digits and returns what follows; a longer run is no such number.
///
/// `lengths` ends at nine at most, so that the number fits.
pub(super) fn take_digits(bytes: &[u8], lengths: Digits) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    let mut length = 0;
    while let Some(digit) = bytes.get(length).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        length += 1;
        if length > *lengths.end() {
            return None;
        }
        value = value * 10 + u32::from(digit);
    }
    lengths
        .contains(&length)
        .then_some((value, &bytes[length..]))
}

/// Splits at the first space, which belongs to neither part; without one, all of it is the word.
pub(super) fn word(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match short_find(bytes, b' ') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Finds a byte that is near in most cases: words of headers are shorter than what makes a vector search pay.
fn short_find(bytes: &[u8], wanted: u8) -> Option<usize> {
    const NEAR: usize = 16;
    let near = bytes.get(..NEAR).unwrap_or(bytes);
    match near.iter().position(|byte| *byte == wanted) {
        Some(at) => Some(at),
        None => memchr::memchr(wanted, &bytes[near.len()..]).map(|at| at + near.len()),
    }
}

/// Drops spaces at the beginning.
pub(super) fn trim_spaces(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().take_while(|byte| **byte == b' ').count();
    &bytes[length..]
}
