//! The limits both ends agree on (design section 8). Limits of one program live in that program.

use std::time::Duration;

/// Largest frame on the wire, in bytes. The server's `max_payload` may lower it.
pub const MAX_FRAME: usize = 512 * 1024;

/// Largest order, in bytes of its JSON text.
pub const MAX_ORDER: usize = 256 * 1024;

/// Bytes kept from the beginning of each output stream.
pub const OUTPUT_HEAD: usize = 48 * 1024;

/// Bytes kept from the end of each output stream.
pub const OUTPUT_TAIL: usize = 16 * 1024;

/// How long a command may run when the message does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest command timeout: a day.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How long a message may wait for its node when it does not say.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// Longest expiry: 90 days, because ships.
pub const MAX_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);

/// Time between two hellos when the config does not say.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Ordered orders of one lane that may be on their way at once, so that order does not cost a round trip each.
pub const LANE_WINDOW: usize = 8;

/// Unordered orders of one node that may be on their way at once.
pub const UNORDERED_WINDOW: usize = 64;

/// Most ids in one confirm or hello frame.
pub const MAX_IDS: usize = 1000;

/// Labels of one node.
pub const MAX_LABELS: usize = 64;

/// Largest difference of clocks at which the wall clock decides about expiry.
pub const TRUSTED_SKEW: Duration = Duration::from_secs(30);
