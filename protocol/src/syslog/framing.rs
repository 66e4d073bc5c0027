//! Cuts a stream of bytes into messages: octet counting and lines, told apart for each message (RFC 6587 §3.4).
//!
//! Pure and incremental: how the bytes are portioned on their way does not change what comes out. What is unfinished is
//! held here, at most [`Limits::keep`] bytes of it; whole messages go from the input into the caller's arena without a
//! detour. It does not read messages beyond their PRI, and knows no sockets.
//!
//! # Rules
//!
//! 1. **A count** is `digits SP` followed by a whole PRI (`<13>`), not beginning with 0, at least as large as that PRI
//!    and at most [`Limits::count`]. RFC 6587 asks only for the digits; but `2024 was a year` is a line,
//!    and everything that follows RFC 5424 has a PRI.
//! 2. **Anything else is a line**, up to LF or NUL; a CR before the LF belongs to the framing. Python's `SysLogHandler` ends
//!    with NUL, and so a traceback, with LFs within, comes as lines; [`Ends::Nul`] is for streams of
//!    such senders only.
//! 3. **Empty lines are no messages**: so the LF that some senders put behind a counted message, or the NUL behind an LF, is
//!    passed over.
//! 4. **Out of step.** Behind a counted message, a count was wrong if neither a count, a PRI nor the end of a line follows. A
//!    count that is too small leaves a rest; one that is too large swallows the next message's count. In either case
//!    waiting for a LF would swallow all that follows, for counted messages need none. So, behind a counted message,
//!    every byte that is not of a counted message is looked at: where `digits SP PRI` stands, a message begins and what came
//!    before it ends, marked [`Frame::is_out_of_step`]. The bytes are kept, so nothing is lost without a word.
//!    A line that is whole (from its PRI to its end) ends this watch. A count larger than the limit begins it.
//! 5. **Too long.** Of a message longer than [`Limits::keep`] the beginning is kept; its length is counted on, for ever if
//!    it never ends.
//! 6. **The end of the stream** ends the message that is open. If it was counted, or no delimiter came, it is marked
//!    [`Frame::is_unfinished`]: perhaps its end is missing.

use std::ops::Range;

mod count;

use self::count::{Counting, Header, Step};

/// How much of a message is kept when the config does not say.
pub const DEFAULT_KEEP: usize = 8 * 1024;

/// Largest octet count that is believed. A wrong one swallows as much, so it should not be large; real
/// senders stay below 256 KiB, and a message of 1 MiB must be cut, not misread.
pub const DEFAULT_COUNT: usize = 2 * 1024 * 1024;

/// Room that a connection keeps while nothing is open: 10,000 idle ones should cost nothing to speak of.
const IDLE_ROOM: usize = 512;

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ends {
    /// LF, CRLF or NUL, whichever comes.
    #[default]
    Any,
    /// NUL; LFs are part of the message.
    Nul,
}

/// What a framer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message that are kept, at least one.
    pub keep: usize,
    /// Largest octet count that is believed.
    pub count: usize,
    /// What ends a line.
    pub ends: Ends,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keep: DEFAULT_KEEP,
            count: DEFAULT_COUNT,
            ends: Ends::Any,
        }
    }
}

/// One message in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    start: usize,
    length: u32,
    original: u32,
    marks: u8,
}

const OUT_OF_STEP: u8 = 1;
const UNFINISHED: u8 = 2;
const COUNTED: u8 = 4;

impl Frame {
    /// Returns where in the arena its bytes are.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.length as usize
    }

    /// Returns the length it had, if it was longer than what is kept; `u32::MAX` stands for all that is larger.
    pub fn cut_from(&self) -> Option<u32> {
        (self.original > self.length).then_some(self.original)
    }

    /// Tells whether a wrong octet count made its beginning or end uncertain.
    pub fn is_out_of_step(&self) -> bool {
        self.marks & OUT_OF_STEP != 0
    }

    /// Tells whether the stream ended before it did.
    pub fn is_unfinished(&self) -> bool {
        self.marks & UNFINISHED != 0
    }

    /// Tells whether it came with an octet count.
    pub fn is_counted(&self) -> bool {
        self.marks & COUNTED != 0
    }
}

/// Whole messages, in the order they came: their bytes one behind the other, and where each of them is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    /// The bytes.
    pub arena: Vec<u8>,
    /// Where each message is in the arena.
    pub list: Vec<Frame>,
}

impl Frames {
    /// Returns each message with its frame.
    pub fn iter(&self) -> impl Iterator<Item = (&Frame, &[u8])> {
        self.list
            .iter()
            .map(|frame| (frame, &self.arena[frame.range()]))
    }

    /// Forgets all of them and keeps the room.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.list.clear();
    }
}

/// What a framer is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between two messages.
    Between,
    /// In a line, or what may become a counted message; every byte is looked at.
    Watch(Counting),
    /// In a line.
    Line,
    /// In a counted message, so many bytes before its end.
    Counted(usize),
}

/// Cuts one stream.
#[derive(Debug, Clone)]
pub struct Framer {
    limits: Limits,
    state: State,
    /// Whether a count may have gone wrong (rule 4).
    counting: bool,
    /// Whether the open message is out of step.
    astray: bool,
    /// The beginning of the open message.
    held: Vec<u8>,
    /// How long the open message is so far.
    total: u64,
    /// Its last byte.
    last: u8,
    out_of_step: u64,
}

impl Framer {
    /// Returns one at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                // A frame's length has 32 bits.
                keep: limits.keep.clamp(1, u32::MAX as usize),
                ..limits
            },
            state: State::Between,
            counting: false,
            astray: false,
            held: Vec::new(),
            total: 0,
            last: 0,
            out_of_step: 0,
        }
    }

    /// Takes bytes of the stream and adds the messages they complete.
    pub fn push(&mut self, mut input: &[u8], frames: &mut Frames) {
        while !input.is_empty() {
            input = match self.state {
                State::Between => self.begin(input, frames),
                State::Watch(counting) => self.watch(counting, input, frames),
                State::Line => self.line(input, frames),
                State::Counted(left) => self.counted(left, input, frames),
            };
        }
    }

    /// Ends the stream: what is open is a message, too.
    pub fn finish(&mut self, frames: &mut Frames) {
        if self.state != State::Between {
            let marks = match self.state {
                State::Counted(_) => COUNTED,
                _ => self.line_marks(self.held.first().copied()),
            };
            self.emit(b"", marks | UNFINISHED, frames);
        }
        self.counting = false;
    }

    /// Returns how many bytes of an unfinished message are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns how many messages were out of step.
    pub fn out_of_step(&self) -> u64 {
        self.out_of_step
    }

    fn begin<'i>(&mut self, input: &'i [u8], frames: &mut Frames) -> &'i [u8] {
        match input[0] {
            byte if self.ends_line(byte) => &input[1..],
            b'1'..=b'9' => self.watch(Counting::default(), input, frames),
            _ if self.counting => self.watch(Counting::default(), input, frames),
            _ => self.line(input, frames),
        }
    }

    fn ends_line(&self, byte: u8) -> bool {
        byte == 0 || byte == b'\n' && self.limits.ends == Ends::Any
    }

    /// Takes a line that nothing but its end can end.
    fn line<'i>(&mut self, input: &'i [u8], frames: &mut Frames) -> &'i [u8] {
        let end = match self.limits.ends {
            Ends::Any => memchr::memchr2(b'\n', 0, input),
            Ends::Nul => memchr::memchr(0, input),
        };
        let Some(end) = end else {
            self.hold(input);
            self.state = State::Line;
            return b"";
        };
        self.end_line(&input[..end], input[end], frames);
        &input[end + 1..]
    }

    /// Looks at every byte for a count, as long as there can be one.
    fn watch<'i>(
        &mut self,
        mut counting: Counting,
        input: &'i [u8],
        frames: &mut Frames,
    ) -> &'i [u8] {
        for (at, byte) in input.iter().copied().enumerate() {
            if self.ends_line(byte) {
                self.end_line(&input[..at], byte, frames);
                return &input[at + 1..];
            }
            match counting.step(byte) {
                Step::On => {}
                Step::No if self.counting => {}
                Step::No => return self.line(input, frames),
                Step::Count(header) if self.is_believable(&header) => {
                    return self.begin_counted(&header, input, at + 1, frames);
                }
                Step::Count(_) => {
                    self.counting = true;
                    self.astray = true;
                }
            }
        }
        self.hold(input);
        self.state = State::Watch(counting);
        b""
    }

    fn is_believable(&self, header: &Header) -> bool {
        (header.pri().len() as u64..=self.limits.count as u64).contains(&header.value)
    }

    /// Begins the message whose count and PRI end at `end` of the input, and ends what was open before them.
    fn begin_counted<'i>(
        &mut self,
        header: &Header,
        input: &'i [u8],
        end: usize,
        frames: &mut Frames,
    ) -> &'i [u8] {
        let count = usize::try_from(header.value).unwrap_or(usize::MAX);
        let (prefix, pri) = (header.prefix, header.pri());
        if let Some(start) = end.checked_sub(prefix + pri.len()) {
            self.emit(&input[..start], OUT_OF_STEP, frames);
            self.state = State::Counted(count);
            &input[start + prefix..]
        } else {
            self.hold(&input[..end]);
            self.drop_last(prefix + pri.len());
            self.emit(b"", OUT_OF_STEP, frames);
            self.hold(pri);
            // Perhaps that was all of it.
            self.counted(count - pri.len(), &input[end..], frames)
        }
    }

    fn counted<'i>(&mut self, left: usize, input: &'i [u8], frames: &mut Frames) -> &'i [u8] {
        let Some((message, rest)) = input.split_at_checked(left) else {
            self.hold(input);
            self.state = State::Counted(left - input.len());
            return b"";
        };
        self.emit(message, COUNTED, frames);
        self.counting = true;
        rest
    }

    /// Ends a line with its last bytes and the delimiter.
    fn end_line(&mut self, rest: &[u8], delimiter: u8, frames: &mut Frames) {
        let rest = match rest {
            [rest @ .., b'\r'] if delimiter == b'\n' => rest,
            [] if delimiter == b'\n' && self.last == b'\r' => {
                self.drop_last(1);
                rest
            }
            _ => rest,
        };
        let first = self.held.first().or(rest.first()).copied();
        let marks = self.line_marks(first);
        self.emit(rest, marks, frames);
        if first == Some(b'<') && marks == 0 {
            self.counting = false;
        }
    }

    fn line_marks(&self, first: Option<u8>) -> u8 {
        let astray = self.astray || self.counting && first != Some(b'<');
        if astray { OUT_OF_STEP } else { 0 }
    }

    /// Adds bytes to the open message.
    fn hold(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.last = *last;
        self.total += bytes.len() as u64;
        let kept = bytes.len().min(self.limits.keep - self.held.len());
        let length = self.held.len() + kept;
        if length > self.held.capacity() {
            // Doubled, so that single bytes cost no more than many; but never beyond what is kept.
            let room = (2 * length).min(self.limits.keep);
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(&bytes[..kept]);
    }

    /// Takes bytes off the end of the open message, which has them.
    fn drop_last(&mut self, count: usize) {
        self.total -= count as u64;
        let total = usize::try_from(self.total).unwrap_or(usize::MAX);
        self.held.truncate(total);
    }

    /// Ends the open message with its last bytes. What has no bytes is no message.
    fn emit(&mut self, rest: &[u8], marks: u8, frames: &mut Frames) {
        let total = self.total + rest.len() as u64;
        if total > 0 {
            let start = frames.arena.len();
            let kept = rest.len().min(self.limits.keep - self.held.len());
            frames.arena.extend_from_slice(&self.held);
            frames.arena.extend_from_slice(&rest[..kept]);
            frames.list.push(Frame {
                start,
                length: (self.held.len() + kept) as u32,
                original: u32::try_from(total).unwrap_or(u32::MAX),
                marks,
            });
            self.out_of_step += u64::from(marks & OUT_OF_STEP != 0);
        }
        if self.held.capacity() > IDLE_ROOM {
            self.held = Vec::new();
        }
        self.held.clear();
        self.total = 0;
        self.last = 0;
        self.astray = false;
        self.state = State::Between;
    }
}
