//! What travels when bytes are carried from one end to the other: outputs and files, in chunks.
//!
//! The receiver pulls. A [`Want`] says what it has durably and how much more may be sent; chunks
//! carry that, and the last one says explicitly how it ended. The sender keeps nothing that a
//! restart could lose. Bytes and words only; the two machines are in [`receiver`] and [`sender`].

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    checksum,
    envelope::{Body, DecodeError, EncodeError, Frame},
    id::{Digest, LedgerId, MessageId},
    limits::MAX_FRAME,
};

pub mod receiver;
pub mod sender;

/// Most bytes one chunk carries.
pub const CHUNK: usize = 64 * 1024;

/// Largest header of a chunk: names, numbers, two digests and a reason fit many times.
pub const MAX_HEADER: usize = 16 * 1024;

/// Most bytes of the reason why a transfer failed that are sent.
pub const MAX_REASON: usize = 1024;

/// The run of a file: its bytes are the same in every one.
pub const FILE_RUN: u32 = 0;

/// Bytes of the length in front of a chunk's header.
const PREFIX: usize = 4;

/// Header of what a station says about transfers. It names no agent start: what is transferred
/// outlives the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Wire version.
    pub v: u16,
    /// Which station's ledger.
    pub ledger_id: LedgerId,
    /// Which reign of it.
    pub epoch: u64,
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The record log of a command's output.
    Output,
    /// The file that an order is about.
    File,
}

/// Names one transfer, with the node at its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transfer {
    /// The order it belongs to.
    pub id: MessageId,
    /// Digest of the order's bytes (rule J5).
    pub digest: Digest,
    /// What of it.
    pub what: What,
}

/// "Everything below `offset` is durably mine; this is what I ask for."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Which transfer.
    pub transfer: Transfer,
    /// Which run of the order the bytes are of; none while the receiver has nothing of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How many bytes the receiver has, durably.
    pub offset: u64,
    /// How many bytes beyond them may be sent.
    pub credit: u64,
    /// What is asked.
    pub ask: Ask,
    /// Why, where the receiver gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a receiver asks of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Go on.
    More,
    /// Go back to the offset: what was sent beyond it has not arrived.
    Again,
    /// Nothing more: all of it is durably stored and its digest is right.
    Done,
    /// Nothing more: the receiver cannot take it.
    GiveUp,
    /// Something a later version introduced.
    #[serde(other)]
    Other,
}

/// The header of some bytes of a transfer. One without bytes and without an end says only that
/// there is something to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Which transfer.
    pub transfer: Transfer,
    /// Which run of the order they are of.
    pub attempt: u32,
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u32,
    /// Their digest.
    pub blake3: Digest,
    /// How it ends, if it ends behind them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

impl Chunk {
    /// Returns the offset behind its last byte.
    pub fn until(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bytes))
    }
}

/// How a transfer ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With its last byte.
    Whole(Whole),
    /// Without it.
    Failed(Failed),
}

/// What a transfer comes to when it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// How many bytes it has.
    pub bytes: u64,
    /// Their digest.
    pub blake3: Digest,
    /// What became of the command, if it is a command's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandEnd>,
}

/// What became of a command whose output is transferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// Its exit code, unless a signal ended it or the end is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// All it wrote to standard output, kept or not.
    pub stdout: Extent,
    /// All it wrote to standard error, kept or not.
    pub stderr: Extent,
}

/// Length and digest of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// How many.
    pub bytes: u64,
    /// Their digest.
    pub blake3: Digest,
}

/// Why there will be no more bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The kind of reason.
    pub why: Failure,
    /// The reason in words.
    pub reason: String,
}

impl Failed {
    /// Returns a failure, its words cut to [`MAX_REASON`] bytes.
    pub fn new(why: Failure, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > MAX_REASON {
            let end = (0..=MAX_REASON)
                .rev()
                .find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
        }
        Self { why, reason }
    }
}

/// The kinds of reasons why there will be no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The sender does not know it, or not yet.
    Unknown,
    /// It was there and is not kept any more.
    Gone,
    /// What lies below the offset of the chunk is not kept any more.
    Released,
    /// It is not what it was when the transfer began.
    Changed,
    /// It is larger than the receiver takes.
    TooLarge,
    /// It must not be had.
    Refused,
    /// It cannot be read, or not be written.
    Storage,
    /// What arrived is not what was sent.
    Damaged,
    /// A reason that a later version introduced.
    #[serde(other)]
    Other,
}

impl Body for Want {
    const KEY: &'static str = "want";
}

impl Body for Chunk {
    const KEY: &'static str = "chunk";
}

/// A header and the bytes behind it, in one payload: `u32 ‖ JSON with checksum ‖ bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<H> {
    /// Who sends.
    pub send: H,
    /// Which bytes they are.
    pub chunk: Chunk,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a packet was not understood.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// It is larger than the limit, or its header is.
    #[error("is {bytes} bytes long; at most {limit} are read")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It ends before its header does.
    #[error("ends after {bytes} bytes, before its header does")]
    Short {
        /// Bytes found.
        bytes: usize,
    },
    /// Its header is none.
    #[error("has a header that {0}")]
    Header(DecodeError),
    /// The bytes are not those that its header speaks of.
    #[error("was damaged on its way: its bytes are not those its header names")]
    Damaged,
}

impl<H: Serialize + DeserializeOwned> Packet<H> {
    /// Writes the packet.
    ///
    /// # Errors
    ///
    /// Fails when it would be larger than [`MAX_FRAME`].
    pub fn encode(send: H, chunk: Chunk, bytes: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let header = checksum::append(Frame { send, body: chunk }.encode()?);
        let whole = PREFIX + header.len() + bytes.len();
        let too_large = EncodeError::TooLarge {
            bytes: whole,
            limit: MAX_FRAME,
        };
        let Ok(length) = u32::try_from(header.len()) else {
            return Err(too_large);
        };
        if whole > MAX_FRAME || header.len() > MAX_HEADER {
            return Err(too_large);
        }
        let mut packet = Vec::with_capacity(whole);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&header);
        packet.extend_from_slice(bytes);
        Ok(packet)
    }

    /// Reads a packet. Never panics, whatever the bytes.
    ///
    /// # Errors
    ///
    /// Says whether it was too large, not a packet, of another version, or damaged.
    pub fn decode(packet: &[u8]) -> Result<Self, PacketError> {
        if packet.len() > MAX_FRAME {
            return Err(PacketError::TooLarge {
                bytes: packet.len(),
                limit: MAX_FRAME,
            });
        }
        let short = || PacketError::Short {
            bytes: packet.len(),
        };
        let (length, rest) = packet.split_first_chunk::<PREFIX>().ok_or_else(short)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_HEADER {
            return Err(PacketError::TooLarge {
                bytes: length,
                limit: MAX_HEADER,
            });
        }
        let (header, bytes) = rest.split_at_checked(length).ok_or_else(short)?;
        // An order may come without a checksum; bytes without one could be written anywhere in a file.
        if !checksum::is_sound(header) {
            return Err(PacketError::Damaged);
        }
        let frame = Frame::<H, Chunk>::decode(header).map_err(PacketError::Header)?;
        let chunk = frame.body;
        let length = u32::try_from(bytes.len()).ok();
        if length != Some(chunk.bytes)
            || chunk.blake3 != Digest::of(bytes)
            || chunk.offset.checked_add(u64::from(chunk.bytes)).is_none()
        {
            return Err(PacketError::Damaged);
        }
        Ok(Self {
            send: frame.send,
            chunk,
            bytes: bytes.to_vec(),
        })
    }
}

/// A moment, as the machines are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By a clock that does not jump.
    pub at: std::time::Duration,
    /// A random number.
    pub dice: u64,
}
