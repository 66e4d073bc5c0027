//! Captures one output stream in bounded memory: its beginning, its end, its length, its digest.

use std::collections::VecDeque;

use steward_protocol::{
    Output,
    limits::{OUTPUT_HEAD, OUTPUT_TAIL},
};
/// A stream being captured.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes: u64,
    hasher: Box<blake3::Hasher>,
}

impl Capture {
    pub(super) fn new() -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes: 0,
            hasher: Box::new(blake3::Hasher::new()),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        let room = OUTPUT_HEAD - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        // Of a long piece only its end can stay in the tail.
        let rest = rest
            .get(rest.len().saturating_sub(OUTPUT_TAIL)..)
            .unwrap_or(rest);
        let surplus = (self.tail.len() + rest.len()).saturating_sub(OUTPUT_TAIL);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend(rest);
    }

    pub(super) fn finish(self) -> Output {
        let blake3 = self.hasher.finalize().into();
        let mut head = self.head;
        let mut tail: Vec<u8> = self.tail.into();
        if self.bytes == (head.len() + tail.len()) as u64 {
            // Nothing was cut.
            head.append(&mut tail);
        }
        Output {
            head,
            tail,
            bytes: self.bytes,
            blake3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_what_the_whole_would_shrink_to() {
        let limit = OUTPUT_HEAD + OUTPUT_TAIL;
        for length in [
            0,
            1,
            OUTPUT_HEAD,
            OUTPUT_HEAD + 1,
            limit - 1,
            limit,
            limit + 1,
            300_000,
        ] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            for piece in [1, 7, 1000, 65_536, 400_000] {
                let mut capture = Capture::new();
                bytes.chunks(piece).for_each(|chunk| capture.push(chunk));
                let mut expected = Output::whole(&bytes);
                expected.shrink(limit);
                assert_eq!(
                    capture.finish(),
                    expected,
                    "{length} bytes in pieces of {piece}"
                );
            }
        }
    }
}
