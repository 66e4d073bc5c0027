//! Messages in transit (design section 4.2): JSON objects of a header and a body.
//!
//! Downwards the header is [`Send`] (orders and cancellations) or [`Reign`] (welcome, confirm), upwards [`Origin`].
//! An order is kept byte for byte as its station wrote it; its digest is taken over those bytes.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    checksum,
    id::{Digest, InstanceId, JournalId, LedgerId, MessageId},
    limits::{MAX_FRAME, MAX_ORDER},
    name::NodeName,
    subject::Subject,
    version,
};

/// What was asked. Never changes once written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The message's id, for ever.
    pub id: MessageId,
    /// The station that issued it.
    pub from: NodeName,
    /// The node that is to obey it.
    pub to: NodeName,
    /// Where it was addressed; compared with the subject it arrives on.
    pub subject: Subject,
    /// When the station accepted it.
    pub issued_at: Timestamp,
    /// After this it must not be started.
    pub expires_at: Timestamp,
    /// Who asked, as the station knows it.
    pub submitted_by: String,
    /// The message this one repeats, if an operator asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<MessageId>,
    /// How long it may run, in milliseconds.
    pub timeout_ms: u64,
    /// Whether it runs one at a time, in order, with the others of its subject.
    pub ordered: bool,
    /// Whether it may be started again when its end is unknown.
    #[serde(default)]
    pub idempotent: bool,
    /// Exit codes that count as success.
    pub success_codes: Vec<i32>,
    /// Whether its output is wanted while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// What the method gets, as it came.
    pub body: Box<RawValue>,
}

/// An order and the bytes it came in.
#[derive(Debug, Clone)]
pub struct Sealed {
    order: Order,
    text: Box<RawValue>,
    digest: Digest,
}

impl Sealed {
    /// Writes `order` down once and for all.
    ///
    /// # Errors
    ///
    /// Fails when the text would be larger than [`MAX_ORDER`].
    pub fn seal(order: Order) -> Result<Self, EncodeError> {
        let text = serde_json::value::to_raw_value(&order).map_err(EncodeError::Json)?;
        let bytes = text.get().len();
        if bytes > MAX_ORDER {
            return Err(EncodeError::TooLarge {
                bytes,
                limit: MAX_ORDER,
            });
        }
        let digest = Digest::of(text.get().as_bytes());
        Ok(Self {
            order,
            text,
            digest,
        })
    }

    /// Reads an order from the bytes it was kept in.
    ///
    /// # Errors
    ///
    /// Fails when they are too many, not JSON, or not an order.
    pub fn open(text: &str) -> Result<Self, DecodeError> {
        let text: Box<RawValue> = serde_json::from_str(text).map_err(DecodeError::Json)?;
        Self::from_raw(text)
    }

    fn from_raw(text: Box<RawValue>) -> Result<Self, DecodeError> {
        if text.get().len() > MAX_ORDER {
            return Err(DecodeError::TooLarge {
                bytes: text.get().len(),
                limit: MAX_ORDER,
            });
        }
        let order = serde_json::from_str(text.get()).map_err(DecodeError::Json)?;
        let digest = Digest::of(text.get().as_bytes());
        Ok(Self {
            order,
            text,
            digest,
        })
    }

    /// Returns what was asked.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Returns the bytes as text.
    pub fn text(&self) -> &str {
        self.text.get()
    }

    /// Returns the digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// One transmission of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Wire version.
    pub v: u16,
    /// Which station.
    pub ledger_id: LedgerId,
    /// Which reign of it.
    pub epoch: u64,
    /// The agent start it is meant for.
    pub instance: InstanceId,
    /// The message's place in the ledger; rises with every acceptance.
    pub pos: u64,
    /// Every order of this ledger for this node with a smaller `pos` is settled and may be forgotten.
    pub low: u64,
    /// Place in its lane (node and subject), contiguous from 1; ordered messages only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Every smaller `seq` of this lane is settled; what is missing below it is not a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_low: Option<u64>,
    /// How many times it has been sent, this time included.
    pub attempt: u32,
    /// Milliseconds until it must not be started any more; 0 makes it a tombstone.
    pub ttl_left_ms: u64,
}

/// Header of what a station says besides orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// Wire version.
    pub v: u16,
    /// Which station.
    pub ledger_id: LedgerId,
    /// Which reign of it.
    pub epoch: u64,
    /// The agent start it is meant for.
    pub instance: InstanceId,
    /// As in [`Send::low`].
    pub low: u64,
}

/// Header of what a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Wire version.
    pub v: u16,
    /// Which start of the agent.
    pub instance: InstanceId,
    /// Which journal.
    pub journal_id: JournalId,
    /// The ledger this agent belongs to, once it has been welcomed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_id: Option<LedgerId>,
}

/// Why a frame was not understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is larger than the limit.
    #[error("is {bytes} bytes long; at most {limit} are read")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not JSON, or not the JSON expected here.
    #[error("is not a frame of this wire version: {0}")]
    Json(serde_json::Error),
    /// Its checksum is not that of its bytes.
    #[error("was damaged on its way: its checksum is not that of its bytes")]
    Damaged,
    /// The sender speaks a version this program does not.
    #[error(
        "speaks wire version {found}; this program reads {} to {}",
        version::OLDEST,
        version::CURRENT
    )]
    Version {
        /// Version found.
        found: u64,
        /// Id and digest of the order inside, where they can be told, so that it can be refused.
        order: Option<(MessageId, Digest)>,
    },
}

/// Why a frame could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Larger than the limit.
    #[error("would be {bytes} bytes long; at most {limit} are allowed")]
    TooLarge {
        /// Bytes needed.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The serialiser failed.
    #[error("cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

/// A header and a body, as `{"send": …, "<body>": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<H, B> {
    /// Who sends, and how.
    pub send: H,
    /// What.
    pub body: B,
}

/// A body that travels under a key of its own.
pub trait Body: Serialize + DeserializeOwned {
    /// The key.
    const KEY: &'static str;
}

impl Body for crate::ack::Ack {
    const KEY: &'static str = "ack";
}
impl Body for crate::cancel::Cancel {
    const KEY: &'static str = "cancel";
}
impl Body for crate::event::Hello {
    const KEY: &'static str = "hello";
}
impl Body for crate::event::Welcome {
    const KEY: &'static str = "welcome";
}
impl Body for crate::event::Confirm {
    const KEY: &'static str = "confirm";
}
impl Body for crate::event::FaultEvent {
    const KEY: &'static str = "fault";
}
impl Body for crate::event::TextEvent {
    const KEY: &'static str = "text";
}
impl Body for crate::event::ReportEvent {
    const KEY: &'static str = "report";
}

/// The two parts of every frame; other keys are ignored.
struct Parts<'a> {
    send: &'a RawValue,
    body: &'a RawValue,
}

/// Splits a frame, checks its size and its version.
fn split<'a>(bytes: &'a [u8], key: &str) -> Result<Parts<'a>, DecodeError> {
    if bytes.len() > MAX_FRAME {
        return Err(DecodeError::TooLarge {
            bytes: bytes.len(),
            limit: MAX_FRAME,
        });
    }
    let mut parts: Vec<(Cow<'a, str>, &'a RawValue)> = serde_json::from_slice::<Pairs<'a>>(bytes)
        .map_err(DecodeError::Json)?
        .0;
    let mut take = |name: &str| {
        let place = parts.iter().position(|(key, _)| key == name)?;
        Some(parts.swap_remove(place).1)
    };
    if take(checksum::KEY).is_some() && !checksum::is_sound(bytes) {
        return Err(DecodeError::Damaged);
    }
    let missing =
        |name: &str| DecodeError::Json(serde::de::Error::custom(format!("no {name:?} in it")));
    let send = take("send").ok_or_else(|| missing("send"))?;
    let body = take(key);

    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    let Versioned { v } = serde_json::from_str(send.get()).map_err(DecodeError::Json)?;
    if !(u64::from(version::OLDEST)..=u64::from(version::CURRENT)).contains(&v) {
        return Err(DecodeError::Version {
            found: v,
            order: body.and_then(name_of),
        });
    }
    Ok(Parts {
        send,
        body: body.ok_or_else(|| missing(key))?,
    })
}

/// Id and digest of an order whose version is not ours: those two never change their meaning.
fn name_of(order: &RawValue) -> Option<(MessageId, Digest)> {
    #[derive(Deserialize)]
    struct Named {
        id: MessageId,
    }
    let Named { id } = serde_json::from_str(order.get()).ok()?;
    Some((id, Digest::of(order.get().as_bytes())))
}

/// A JSON object as its pairs; a key that comes twice is an error.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Most top-level keys of a frame that are looked at.
const MAX_KEYS: usize = 16;

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Pairs<'a>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a frame: a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Pairs<'a>, A::Error> {
                let mut pairs: Vec<(Cow<'a, str>, &'a RawValue)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    if pairs.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format!("key {key:?} twice")));
                    }
                    if pairs.len() == MAX_KEYS {
                        return Err(serde::de::Error::custom(format!(
                            "more than {MAX_KEYS} keys"
                        )));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

fn join(key: &str, send: &impl Serialize, body: &RawValue) -> Result<Vec<u8>, EncodeError> {
    let send = serde_json::to_string(send).map_err(EncodeError::Json)?;
    let text = format!("{{\"send\":{send},\"{key}\":{}}}", body.get());
    if text.len() > MAX_FRAME {
        return Err(EncodeError::TooLarge {
            bytes: text.len(),
            limit: MAX_FRAME,
        });
    }
    Ok(text.into_bytes())
}

impl<H: Serialize + DeserializeOwned, B: Body> Frame<H, B> {
    /// Writes the frame.
    ///
    /// # Errors
    ///
    /// Fails when it would be larger than [`MAX_FRAME`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let body = serde_json::value::to_raw_value(&self.body).map_err(EncodeError::Json)?;
        join(B::KEY, &self.send, &body)
    }

    /// Reads a frame. Never panics, whatever the bytes.
    ///
    /// # Errors
    ///
    /// Says whether it was too large, not a frame, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let parts = split(bytes, B::KEY)?;
        Ok(Self {
            send: serde_json::from_str(parts.send.get()).map_err(DecodeError::Json)?,
            body: serde_json::from_str(parts.body.get()).map_err(DecodeError::Json)?,
        })
    }
}

/// An order on its way: the envelope of design section 4.2.
pub type Envelope = Frame<Send, Sealed>;

impl Envelope {
    /// The key an order travels under.
    pub const KEY: &'static str = "order";

    /// Writes the envelope around the order's own bytes.
    ///
    /// # Errors
    ///
    /// Fails when it would be larger than [`MAX_FRAME`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        join(Self::KEY, &self.send, &self.body.text)
    }

    /// Reads an envelope. Never panics, whatever the bytes.
    ///
    /// # Errors
    ///
    /// Says whether it was too large, not an envelope, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let parts = split(bytes, Self::KEY)?;
        Ok(Self {
            send: serde_json::from_str(parts.send.get()).map_err(DecodeError::Json)?,
            body: Sealed::from_raw(parts.body.to_owned())?,
        })
    }
}
