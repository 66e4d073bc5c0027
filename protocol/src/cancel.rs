//! The cancellation of an order: a tombstone on its way to the node.
//!
//! It travels on `<node>.command.cancel.<domain>`, under the header the order itself would have, so
//! that it fills the order's place in its lane and never queues behind it (design section 4.1).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{Digest, MessageId},
    subject::Subject,
};

/// "This order must not be started any more; if it runs, stop it." Answered with an ACK for the
/// order: `cancelled`, or whatever it had come to before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The order's id.
    pub id: MessageId,
    /// Digest of the order's bytes (rule J5).
    pub digest: Digest,
    /// Where the order was addressed.
    pub subject: Subject,
    /// When it was asked for, by the station's clock.
    pub at: Timestamp,
    /// Who asked, as the station knows it.
    pub by: String,
}
