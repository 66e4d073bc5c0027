//! What inputs hand over: many messages at once, in one piece of memory. It knows no spool.

use std::sync::Arc;

use steward_protocol::logs::{Entry, Gap, Micros};

/// Messages of one source that came together.
#[derive(Debug, Clone)]
pub struct Portion {
    /// Where they came from, such as `udp://127.0.0.1:5514` or a path.
    pub source: Arc<str>,
    /// When they were received.
    pub received: Micros,
    /// Their bytes.
    pub arena: Vec<u8>,
    /// Where they are in it, in their order.
    pub messages: Vec<Piece>,
    /// What is known to be missing in front of them.
    pub gaps: Vec<Gap>,
}

/// Where a message is, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the arena.
    pub at: u32,
    /// How many bytes of it are there.
    pub length: u32,
    /// Its length as it came; more than `length` if it was cut.
    pub original: u32,
    /// Where the name of its program begins in the arena.
    pub app_at: u32,
    /// The length of that name; 0 if it is not known.
    pub app_length: u8,
    /// Its severity, 0 to 7; 5 if it has none.
    pub severity: u8,
    /// Whether it could not be read as syslog.
    pub unparsed: bool,
}

impl Piece {
    /// Returns a piece of which only the place and the severity are known.
    pub fn new(at: u32, length: u32, severity: u8) -> Self {
        Self {
            at,
            length,
            original: length,
            app_at: 0,
            app_length: 0,
            severity,
            unparsed: false,
        }
    }
}

impl Portion {
    /// Returns a portion without messages.
    pub fn new(source: Arc<str>, received: Micros) -> Self {
        Self {
            source,
            received,
            arena: Vec::new(),
            messages: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Adds a message of which only the severity is known.
    pub fn push(&mut self, bytes: &[u8], severity: u8) {
        let at = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.arena.extend_from_slice(bytes);
        self.messages.push(Piece::new(at, length, severity));
    }

    /// Returns the bytes of a message; none, if the piece is beyond the arena.
    pub fn bytes_of(&self, piece: &Piece) -> &[u8] {
        slice(&self.arena, piece.at, piece.length)
    }

    /// Adds a message of another portion.
    pub fn copy(&mut self, from: &Self, piece: &Piece) {
        let at = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        self.arena.extend_from_slice(from.bytes_of(piece));
        self.messages.push(Piece {
            at,
            app_at: piece.app_at.wrapping_sub(piece.at).wrapping_add(at),
            ..*piece
        });
    }

    /// Returns how many messages are lost with it: its own, and those it says are missing.
    pub fn losses(&self) -> u64 {
        let gaps = self.gaps.iter().filter_map(|gap| gap.count);
        self.messages.len() as u64 + gaps.sum::<u64>()
    }

    /// Tells whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.gaps.is_empty()
    }

    /// Returns an upper bound of what its records take, before compression.
    pub(super) fn cost(&self) -> u64 {
        const RECORD: u64 = 16;
        const GAP: u64 = 160;
        const HEADER: u64 = 1024;
        HEADER
            + self.arena.len() as u64
            + self.messages.len() as u64 * RECORD
            + self.gaps.len() as u64 * GAP
    }

    /// Returns a message as a record, cut to `longest` bytes. A piece beyond the arena is empty.
    pub(super) fn entry(&self, piece: &Piece, longest: usize) -> Entry<'_> {
        let whole = slice(&self.arena, piece.at, piece.length);
        let app = slice(&self.arena, piece.app_at, u32::from(piece.app_length));
        Entry {
            received: self.received,
            source: &self.source,
            severity: piece.severity,
            app: (!app.is_empty()).then_some(app),
            unparsed: piece.unparsed,
            original: Some(u64::from(piece.original.max(piece.length))),
            bytes: &whole[..whole.len().min(longest)],
        }
    }
}

fn slice(arena: &[u8], at: u32, length: u32) -> &[u8] {
    arena
        .get(at as usize..)
        .and_then(|rest| rest.get(..length as usize))
        .unwrap_or_default()
}
