//! Takes batches out of the bytes of a segment, one after the other, also behind damage. Pure.

use steward_protocol::logs::{Batch, frame};

/// Whether bytes end where the segment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// They are all there are.
    All,
    /// More follow.
    Part,
}

/// What bytes begin with.
#[derive(Debug)]
pub enum Found<'a> {
    /// A batch, and how many bytes it takes with its head.
    Batch(Box<Batch<'a>>, usize),
    /// So many bytes that are no batch.
    Damage(usize),
    /// Too little to tell: more must be read from here on.
    Short,
}

/// Tells what `bytes` begin with.
pub fn first(bytes: &[u8], rest: Rest) -> Found<'_> {
    match frame::length(bytes) {
        Some(length) => match bytes.get(frame::HEAD..frame::HEAD + length) {
            Some(payload) => match Batch::read(payload) {
                Ok(batch) => Found::Batch(Box::new(batch), frame::HEAD + length),
                Err(_) => damage(bytes, rest),
            },
            None if rest == Rest::Part => Found::Short,
            None => damage(bytes, rest),
        },
        None if rest == Rest::Part && bytes.len() < frame::HEAD => Found::Short,
        None => damage(bytes, rest),
    }
}

/// Returns how far it is to the next head.
fn damage<'a>(bytes: &[u8], rest: Rest) -> Found<'a> {
    let next = bytes.get(1..).and_then(frame::find);
    Found::Damage(match (next, rest) {
        (Some(next), _) => 1 + next,
        (None, Rest::All) => bytes.len(),
        // A head may begin in the last bytes.
        (None, Rest::Part) => bytes.len().saturating_sub(frame::HEAD - 1).max(1),
    })
}
