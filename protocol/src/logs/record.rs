//! Records as bytes, before compression: `flags ‖ Δ receive time ‖ source ‖ [original length] ‖ length ‖ bytes`.
//!
//! Numbers are LEB128; the receive time is the difference to the record before (the first: to 0), zigzag. It knows
//! neither the header nor the compression, and never looks into the bytes of a message.

use super::{
    BatchError, Gap, MAX_APP, MAX_APPS, MAX_BYTES, MAX_RAW, MAX_SOURCE, MAX_SOURCES,
    MAX_SOURCES_BYTES, Micros,
};
use crate::syslog::Severities;

/// The record is a gap; its bytes are JSON.
const GAP: u8 = 1;
/// Bytes are missing at its end; its original length is there.
const CUT: u8 = 2;
/// It could not be read as syslog.
const UNPARSED: u8 = 4;
/// Bits that mean nothing yet.
const RESERVED: u8 = 0b0001_1000;
/// Where the three bits of the severity begin.
const SEVERITY: u32 = 5;

/// The severity a gap is shown with: warning.
const GAP_SEVERITY: u8 = 4;

/// Fewest bytes of a record.
pub(super) const LEAST: u64 = 4;

/// Most bytes of a record beside its message: flags and four numbers.
const OVERHEAD: usize = 1 + 4 * 10;

/// One log message on its way into a batch.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When it was received.
    pub received: Micros,
    /// Where it came from, such as `udp://127.0.0.1:5514` or a path.
    pub source: &'a str,
    /// Its severity, 0 to 7. What has none counts as 5, notice (RFC 3164, 4.3.3).
    pub severity: u8,
    /// The program that wrote it, if somebody looked. A batch names its programs only if all are known.
    pub app: Option<&'a [u8]>,
    /// Whether it could not be read as syslog.
    pub unparsed: bool,
    /// Its length as it came, if `bytes` is only its beginning.
    pub original: Option<u64>,
    /// The message as it came, without framing. Cut to [`MAX_BYTES`].
    pub bytes: &'a [u8],
}

/// What became of a record that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It is in the batch.
    Taken,
    /// It is not: the batch must be sealed first. An empty batch takes any record.
    Full,
}

/// The open batch: collects records in memory until it is sealed by a [`super::Packer`], and is then empty again.
#[derive(Debug)]
pub struct Builder {
    pub(super) raw: Vec<u8>,
    pub(super) count: u64,
    pub(super) gaps: u64,
    pub(super) from: Micros,
    pub(super) to: Micros,
    pub(super) severities: Severities,
    pub(super) sources: Vec<String>,
    /// Names of the programs; none as soon as one is unknown, or there are too many.
    pub(super) apps: Option<Vec<String>>,
    target: usize,
    source_bytes: usize,
    source: usize,
    app: usize,
    time: i64,
}

impl Builder {
    /// Returns an empty batch that is full at `target` bytes of records, at most [`MAX_RAW`].
    pub fn new(target: usize) -> Self {
        Self {
            raw: Vec::new(),
            count: 0,
            gaps: 0,
            from: Micros(i64::MAX),
            to: Micros(i64::MIN),
            severities: Severities::default(),
            sources: Vec::new(),
            apps: Some(Vec::new()),
            target: target.min(MAX_RAW),
            source_bytes: 0,
            source: 0,
            app: 0,
            time: 0,
        }
    }

    /// Tells whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many records are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many bytes its records take, before compression.
    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// Returns the severities that are in it.
    pub fn severities(&self) -> Severities {
        self.severities
    }

    /// Adds a message.
    pub fn push(&mut self, entry: &Entry<'_>) -> Push {
        let bytes = &entry.bytes[..entry.bytes.len().min(MAX_BYTES)];
        let length = entry.bytes.len() as u64;
        let original = entry.original.unwrap_or(length).max(length);
        if !self.has_room(bytes.len()) {
            return Push::Full;
        }
        let Some(source) = self.number(entry.source) else {
            return Push::Full;
        };
        self.note_app(entry.app);
        let is_cut = original > bytes.len() as u64;
        let severity = entry.severity.min(7);
        let flags = if is_cut { CUT } else { 0 }
            | if entry.unparsed { UNPARSED } else { 0 }
            | severity << SEVERITY;
        self.begin(flags, entry.received, source);
        if is_cut {
            put(&mut self.raw, original);
        }
        self.end(bytes);
        self.severities.insert(severity);
        Push::Taken
    }

    /// Adds a gap that has had no position so far.
    pub fn push_gap(&mut self, received: Micros, source: &str, gap: &Gap) -> Push {
        let Ok(json) = serde_json::to_vec(&gap.clone().bounded()) else {
            // A struct of numbers and strings is always JSON.
            return Push::Taken;
        };
        if !self.has_room(json.len()) {
            return Push::Full;
        }
        let Some(source) = self.number(source) else {
            return Push::Full;
        };
        self.begin(GAP | GAP_SEVERITY << SEVERITY, received, source);
        self.end(&json);
        self.severities.insert(GAP_SEVERITY);
        self.gaps += 1;
        Push::Taken
    }

    /// Forgets what is in it, and keeps its memory.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.count = 0;
        self.gaps = 0;
        self.from = Micros(i64::MAX);
        self.to = Micros(i64::MIN);
        self.severities = Severities::default();
        self.sources.clear();
        self.apps = Some(Vec::new());
        self.source_bytes = 0;
        self.source = 0;
        self.app = 0;
        self.time = 0;
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.is_empty() || self.raw.len() + OVERHEAD + bytes <= self.target
    }

    fn begin(&mut self, flags: u8, received: Micros, source: usize) {
        self.raw.push(flags);
        // Wraps in both directions, so that any time can be written.
        put(&mut self.raw, zigzag(received.0.wrapping_sub(self.time)));
        put(&mut self.raw, source as u64);
        self.time = received.0;
        self.from = self.from.min(received);
        self.to = self.to.max(received);
    }

    fn end(&mut self, bytes: &[u8]) {
        put(&mut self.raw, bytes.len() as u64);
        self.raw.extend_from_slice(bytes);
        self.count += 1;
    }

    /// Returns the number of a source, or none if it has no room for its name.
    fn number(&mut self, name: &str) -> Option<usize> {
        let name = &name[..name.floor_char_boundary(MAX_SOURCE)];
        if self
            .sources
            .get(self.source)
            .is_some_and(|known| known == name)
        {
            return Some(self.source);
        }
        let known = self.sources.iter().position(|known| known == name);
        self.source = match known {
            Some(number) => number,
            None => {
                let bytes = self.source_bytes + json_len(name);
                if self.sources.len() == MAX_SOURCES || bytes > MAX_SOURCES_BYTES {
                    return None;
                }
                self.source_bytes = bytes;
                self.sources.push(name.to_owned());
                self.sources.len() - 1
            }
        };
        Some(self.source)
    }

    fn note_app(&mut self, app: Option<&[u8]>) {
        let Some(apps) = &mut self.apps else {
            return;
        };
        let Some(app) = app.filter(|app| app.len() <= MAX_APP) else {
            self.apps = None;
            return;
        };
        if apps
            .get(self.app)
            .is_some_and(|known| known.as_bytes() == app)
        {
            return;
        }
        if let Some(number) = apps.iter().position(|known| known.as_bytes() == app) {
            self.app = number;
            return;
        }
        match str::from_utf8(app) {
            Ok(name) if apps.len() < MAX_APPS => {
                self.app = apps.len();
                apps.push(name.to_owned());
            }
            Ok(_) | Err(_) => self.apps = None,
        }
    }
}

/// One record of a batch, its bytes where they were unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in its stream.
    pub position: u64,
    /// When it was received.
    pub received: Micros,
    /// Where it came from.
    pub source: &'a str,
    /// Its severity, 0 to 7.
    pub severity: u8,
    /// Whether it could not be read as syslog.
    pub unparsed: bool,
    /// Its length as it came; more than `bytes` has if it was cut.
    pub original: u64,
    /// The message as it came, or the JSON of a gap.
    pub bytes: &'a [u8],
    is_gap: bool,
}

impl Record<'_> {
    /// Tells whether it is a gap and not a message.
    pub fn is_gap(&self) -> bool {
        self.is_gap
    }

    /// Tells whether bytes are missing at its end.
    pub fn is_cut(&self) -> bool {
        self.original > self.bytes.len() as u64
    }

    /// Returns the gap, if it is one. One that cannot be read is a gap all the same.
    pub fn gap(&self) -> Option<Gap> {
        let unread = || Gap::new(None, super::Reason::Other);
        self.is_gap
            .then(|| serde_json::from_slice(self.bytes).unwrap_or_else(|_| unread()))
    }
}

/// The records of a batch, in their order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    sources: &'a [String],
    left: u64,
    position: u64,
    time: i64,
}

impl<'a> Records<'a> {
    pub(super) fn new(raw: &'a [u8], sources: &'a [String], first: u64, count: u64) -> Self {
        Self {
            rest: raw,
            sources,
            left: count,
            position: first,
            time: 0,
        }
    }

    /// Returns the bytes that are not read yet, with what stands between messages: enough to see that something is in
    /// none of them.
    pub fn raw(&self) -> &'a [u8] {
        self.rest
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let flags = *self.rest.split_off_first()?;
        if flags & RESERVED != 0 {
            return None;
        }
        let time = self.time.wrapping_add(unzigzag(take(&mut self.rest)?));
        let source = usize::try_from(take(&mut self.rest)?).ok()?;
        let source = self.sources.get(source)?;
        let original = match flags & CUT {
            0 => None,
            _ => Some(take(&mut self.rest)?),
        };
        let length = usize::try_from(take(&mut self.rest)?).ok()?;
        let bytes = self.rest.split_off(..length)?;
        let original = original.unwrap_or(length as u64);
        if flags & CUT != 0 && original <= length as u64 {
            return None;
        }
        let position = self.position;
        self.position = position.checked_add(1)?;
        self.time = time;
        Some(Record {
            position,
            received: Micros(time),
            source,
            severity: flags >> SEVERITY,
            unparsed: flags & UNPARSED != 0,
            original,
            bytes,
            is_gap: flags & GAP != 0,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let is_over = std::mem::take(&mut self.rest).is_empty();
            return (!is_over).then_some(Err(BatchError::Record(self.position)));
        }
        self.left -= 1;
        let position = self.position;
        let record = self.record();
        if record.is_none() {
            self.left = 0;
            self.rest = &[];
        }
        Some(record.ok_or(BatchError::Record(position)))
    }
}

/// Returns how many bytes a name takes in a header.
fn json_len(name: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    3 + name.bytes().map(escaped).sum::<usize>()
}

fn put(raw: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        raw.push(number as u8 | 0x80);
        number >>= 7;
    }
    raw.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}
