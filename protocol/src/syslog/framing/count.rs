//! Recognises `digits SP <digits>`: an octet count and the PRI of the message it counts.
//!
//! One byte at a time, wherever it begins. It does not judge the count.

/// Digits of a count that are looked at; longer runs are no counts.
const MOST_DIGITS: u8 = 10;

/// Bytes of the longest PRI, `<191>`.
const MOST_PRI: usize = 5;

/// How much of a count was seen up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counting {
    value: u64,
    /// Digits of the count; 0 when nothing of it was seen.
    digits: u8,
    spaced: bool,
    pri: [u8; MOST_PRI],
    /// Bytes of the PRI.
    length: u8,
}

/// What a byte meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It can still become a count.
    On,
    /// It is none; what comes next may be.
    No,
    /// It is one, and this byte is its PRI's last.
    Count(Header),
}

/// A count and a PRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What was counted.
    pub(super) value: u64,
    /// Bytes of the count and its space.
    pub(super) prefix: usize,
    pri: [u8; MOST_PRI],
    length: u8,
}

impl Header {
    /// Returns the PRI as written.
    pub(super) fn pri(&self) -> &[u8] {
        &self.pri[..usize::from(self.length)]
    }
}

impl Counting {
    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match (self.length, byte) {
            (0, b'0'..=b'9') if !self.spaced => return self.digit(byte),
            (0, b' ') if (1..=MOST_DIGITS).contains(&self.digits) && !self.spaced => {
                self.spaced = true;
                return Step::On;
            }
            (0, b'<') if self.spaced => return self.pri(byte),
            (1..4, b'0'..=b'9') => return self.pri(byte),
            (2..5, b'>') => {
                self.pri(byte);
                let header = self.header();
                *self = Self::default();
                return Step::Count(header);
            }
            _ => {}
        }
        self.begin_again(byte);
        Step::No
    }

    /// Breaks one count off and perhaps begins the next: with this byte, or with digits that were taken for a PRI's.
    fn begin_again(&mut self, byte: u8) {
        let seen = *self;
        *self = Self::default();
        for digit in seen.pri[..usize::from(seen.length)].iter().skip(1) {
            self.digit(*digit);
        }
        if seen.length > 1 || byte.is_ascii_digit() {
            self.step(byte);
        }
    }

    fn digit(&mut self, byte: u8) -> Step {
        if self.digits == 0 && byte == b'0' {
            return Step::No;
        }
        // A run that is too long stays one, so that its end is not read as a count.
        if self.digits >= MOST_DIGITS {
            self.digits = MOST_DIGITS + 1;
            return Step::No;
        }
        self.value = self.value * 10 + u64::from(byte - b'0');
        self.digits += 1;
        Step::On
    }

    fn pri(&mut self, byte: u8) -> Step {
        self.pri[usize::from(self.length)] = byte;
        self.length += 1;
        Step::On
    }

    fn header(&self) -> Header {
        Header {
            value: self.value,
            prefix: usize::from(self.digits) + 1,
            pri: self.pri,
            length: self.length,
        }
    }
}
