//! Batches of logs on their way past the loop: they are many and large, and neither wait for what the
//! loop does nor hold it up. It does not know what is in them.

use std::sync::Arc;

use steward_protocol::{Kind, Method, NodeName};

use super::ears::Ears;

/// A batch as it arrived.
#[derive(Debug)]
pub struct Batch {
    /// Where.
    pub subject: String,
    /// What.
    pub payload: Vec<u8>,
}

/// What nodes log, with nobody louder than the others.
#[derive(Debug)]
pub struct Batches {
    ears: Arc<Ears>,
}

impl Batches {
    pub(super) fn new(ears: Arc<Ears>) -> Self {
        Self { ears }
    }

    /// Waits for batches, and returns up to `most` of them. Safe to drop and call again.
    pub async fn take(&self, most: usize) -> Vec<Batch> {
        let frames = self.ears.batches(most).await;
        let batch = |frame: super::intake::Frame| Batch {
            subject: frame.subject,
            payload: frame.payload,
        };
        frames.into_iter().map(batch).collect()
    }

    /// Counts a batch that was not understood against its sender.
    pub fn offend(&self, sender: Option<NodeName>, kind: &'static str) {
        self.ears.offend(sender, kind);
    }
}

/// Tells whether a batch of logs travels on a subject.
pub(super) fn is_batch(subject: &str) -> bool {
    let mut tokens = subject.split('.').skip(1);
    tokens.next() == Some(Kind::Event.as_str())
        && tokens.next() == Some(Method::Syslogforwarding.as_str())
}
