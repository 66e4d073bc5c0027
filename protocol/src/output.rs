//! What a command wrote to one stream: its beginning and its end, its length and its digest.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::Digest;

/// One captured stream. Bytes stay bytes: text on the wire only where it is exactly the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// The first bytes; all of them unless something was cut.
    pub head: Vec<u8>,
    /// The last bytes; empty unless something was cut.
    pub tail: Vec<u8>,
    /// How many bytes the command wrote.
    pub bytes: u64,
    /// Digest of everything the command wrote.
    pub blake3: Digest,
}

impl Output {
    /// Returns a stream kept whole.
    pub fn whole(bytes: &[u8]) -> Self {
        Self {
            head: bytes.to_vec(),
            tail: Vec::new(),
            bytes: bytes.len() as u64,
            blake3: Digest::of(bytes),
        }
    }

    /// Returns the number of bytes kept.
    pub fn kept(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Returns the number of bytes missing between head and tail.
    pub fn omitted(&self) -> u64 {
        self.bytes.saturating_sub(self.kept() as u64)
    }

    /// Tells whether something is missing.
    pub fn is_truncated(&self) -> bool {
        self.omitted() > 0
    }

    /// Keeps at most `keep` bytes, three quarters of them from the beginning; length and digest stay.
    pub fn shrink(&mut self, keep: usize) {
        if self.kept() <= keep {
            return;
        }
        let (head, tail) = (keep - keep / 4, keep / 4);
        if !self.is_truncated() {
            self.tail = self.head.split_off(self.head.len().min(head));
        }
        self.head.truncate(head);
        let surplus = self.tail.len().saturating_sub(tail);
        self.tail.drain(..surplus);
    }

    fn joined(&self) -> Vec<u8> {
        [self.head.as_slice(), self.tail.as_slice()].concat()
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Output")
            .field("bytes", &self.bytes)
            .field("kept", &String::from_utf8_lossy(&self.joined()))
            .finish_non_exhaustive()
    }
}

/// The JSON shape: `text` where the kept bytes are UTF-8 and that is the shorter spelling, else `base64`.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    bytes: u64,
    truncated: bool,
    /// Where the cut is, when something was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_bytes: Option<usize>,
    blake3: Digest,
}

/// Length of `text` inside JSON quotes, as `serde_json` escapes it.
fn escaped_length(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let joined = self.joined();
        // Text with many control characters grows sixfold in JSON; base64 never more than by 4/3.
        let (text, base64) = match String::from_utf8(joined) {
            Ok(text) if escaped_length(&text) <= text.len() * 4 / 3 + 64 => (Some(text), None),
            Ok(text) => (None, Some(STANDARD.encode(text))),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        Written {
            text,
            base64,
            bytes: self.bytes,
            truncated: self.is_truncated(),
            head_bytes: self.is_truncated().then_some(self.head.len()),
            blake3: self.blake3,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let mut head = match (written.text, written.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).map_err(de::Error::custom)?,
            (Some(_), Some(_)) | (None, None) => {
                return Err(de::Error::custom(
                    "output has exactly one of text and base64",
                ));
            }
        };
        let kept = head.len();
        let cut = written.head_bytes.unwrap_or(kept);
        if cut > kept
            || written.bytes < kept as u64
            || (written.bytes > kept as u64) != written.truncated
        {
            return Err(de::Error::custom(
                "lengths of the output contradict each other",
            ));
        }
        let tail = head.split_off(cut);
        Ok(Self {
            head,
            tail,
            bytes: written.bytes,
            blake3: written.blake3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(output: &Output) -> String {
        let text = serde_json::to_string(output).expect("output serialises");
        let back: Output = serde_json::from_str(&text).expect("and comes back");
        assert_eq!(&back, output);
        text
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        assert!(round_trip(&Output::whole(b"Linux\n")).contains("\"text\":\"Linux\\n\""));
        assert!(round_trip(&Output::whole(&[0xff, 0xfe, 0])).contains("base64"));
        assert!(round_trip(&Output::whole(b"")).contains("\"truncated\":false"));
    }

    #[test]
    fn control_characters_do_not_blow_up_the_frame() {
        let text = round_trip(&Output::whole(&[1_u8; 60_000]));
        assert!(text.len() < 81_000, "{} bytes", text.len());
    }

    #[test]
    fn shrinking_keeps_length_digest_and_both_ends() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut output = Output::whole(&bytes);
        output.shrink(100);
        assert_eq!(output.head, bytes[..75]);
        assert_eq!(output.tail, bytes[975..]);
        assert_eq!((output.bytes, output.omitted()), (1000, 900));
        assert_eq!(output.blake3, Digest::of(&bytes));
        round_trip(&output);
        output.shrink(0);
        assert_eq!((output.kept(), output.omitted()), (0, 1000));
        round_trip(&output);
    }
}
