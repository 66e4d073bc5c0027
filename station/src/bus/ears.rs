//! What the relay hears and the loop takes: the queues of all senders, and a bell.
//!
//! The only lock between the two. It does not know where frames come from.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use steward_protocol::{Digest, NodeName, SubjectFilter};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::{
    Heard,
    batches::{Batches, is_batch},
    intake::{Frame, Intake, Limits},
    wire::{Message, Piece, sender_of},
};

/// "No responders" waiting for the loop. They are information: what is dropped is learned again.
const NOBODY: usize = 4096;

/// The status of "no responders".
const NO_RESPONDERS: u16 = 503;

/// Counts a message to our reply address that the broker did not send.
const FORGED_REPLY: &str = "forged_reply";

/// Counts a message that a reply subject elsewhere made the broker deliver here.
const MISDIRECTED: &str = "misdirected";

/// Where replies go. The only one there is comes from the broker: that nobody listens.
///
/// A node sees the reply address of what is sent to it. It is sealed, so that the node can say with
/// it at most that it is not there itself.
#[derive(Debug, Clone)]
pub(super) struct ReplyTo {
    prefix: String,
    secret: String,
}

impl ReplyTo {
    /// Returns an address nobody has had before.
    pub(super) fn new() -> Self {
        Self {
            prefix: format!("_INBOX.{}", Uuid::new_v4().simple()),
            secret: secret(),
        }
    }

    /// Returns the subject to listen on.
    pub(super) fn listen(&self) -> String {
        format!("{}.>", self.prefix)
    }

    /// Returns the reply subject of what is sent to `node` at `sent_ms`.
    pub(super) fn to(&self, node: &NodeName, sent_ms: u64) -> String {
        let place = format!("{node}.{sent_ms}");
        format!("{}.{}.{place}", self.prefix, self.seal(&place))
    }

    /// Returns what a subject is the reply to; nothing if the subject is not one of ours.
    fn read(&self, subject: &str) -> Option<(NodeName, u64)> {
        let (seal, place) = self.tail(subject)?.split_once('.')?;
        if seal != self.seal(place) {
            return None;
        }
        let (node, sent_ms) = place.split_once('.')?;
        Some((node.parse().ok()?, sent_ms.parse().ok()?))
    }

    fn tail<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)?.strip_prefix('.')
    }

    fn seal(&self, place: &str) -> String {
        let digest = Digest::of(format!("{}.{place}", self.secret).as_bytes());
        digest.to_string()[..16].to_owned()
    }
}

/// Returns what nobody can guess.
pub(super) fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The hearing end of the relay.
pub(super) struct Ears {
    filter: SubjectFilter,
    reply_to: ReplyTo,
    heard: Mutex<Queues>,
    bell: Notify,
    /// Rings when there are batches of logs.
    batch_bell: Notify,
    born: Instant,
}

struct Queues {
    intake: Intake,
    /// Batches of logs: they neither wait for words nor hold them up, not even of the same node.
    batches: Intake,
    nobody: VecDeque<Heard>,
}

impl fmt::Debug for Ears {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ears({})", self.filter)
    }
}

impl Ears {
    pub(super) fn new(filter: SubjectFilter, reply_to: ReplyTo) -> Self {
        Self {
            filter,
            reply_to,
            heard: Mutex::new(Queues {
                intake: Intake::default(),
                batches: Intake::new(Limits::LOGS),
                nobody: VecDeque::new(),
            }),
            bell: Notify::new(),
            batch_bell: Notify::new(),
            born: Instant::now(),
        }
    }

    /// Takes what is for the loop, and returns what is for the client.
    pub(super) fn listen(&self, pieces: Vec<Piece>) -> Vec<u8> {
        let mut others = Vec::new();
        let now = self.born.elapsed();
        let mut queues = self.queues();
        for piece in pieces {
            match piece {
                Piece::Other(line) => others.extend_from_slice(&line),
                Piece::Poison { sender, kind } => queues.intake.offend(sender, kind.as_str(), 1),
                Piece::Message(message) if self.reply_to.tail(&message.subject).is_some() => {
                    self.reply(&mut queues, &message);
                }
                Piece::Message(Message {
                    subject,
                    status,
                    payload,
                }) => {
                    let sender = sender_of(subject.as_bytes());
                    // A reply subject elsewhere can make a broker deliver what was never addressed to us.
                    if status.is_some() || !self.filter.matches(&subject) {
                        queues.intake.offend(sender, MISDIRECTED, 1);
                        continue;
                    }
                    let queue = match is_batch(&subject) {
                        true => &mut queues.batches,
                        false => &mut queues.intake,
                    };
                    queue.offer(sender, Frame { subject, payload }, now);
                }
            }
        }
        // What is wrong with batches is for the loop to count.
        let has_offences = queues.batches.has_offences();
        let ring = !queues.intake.is_empty() || !queues.nobody.is_empty() || has_offences;
        let ring_batches = !queues.batches.is_empty();
        drop(queues);
        if ring_batches {
            self.batch_bell.notify_one();
        }
        if ring {
            self.bell.notify_one();
        }
        others
    }

    fn reply(&self, queues: &mut Queues, message: &Message) {
        match self.reply_to.read(&message.subject) {
            Some((node, sent_ms)) if message.status == Some(NO_RESPONDERS) => {
                if queues.nobody.len() < NOBODY {
                    queues
                        .nobody
                        .push_back(Heard::NoResponders { node, sent_ms });
                }
            }
            Some((node, _)) => queues.intake.offend(Some(node), FORGED_REPLY, 1),
            None => queues.intake.offend(None, FORGED_REPLY, 1),
        }
    }

    fn take(&self, most: usize) -> Vec<Heard> {
        let mut queues = self.queues();
        let mut offences = queues.intake.take_offences();
        offences.extend(queues.batches.take_offences());
        let mut heard: Vec<Heard> = offences
            .into_iter()
            .map(|offence| Heard::Offence {
                sender: offence.sender,
                kind: offence.kind,
                count: offence.count,
            })
            .collect();
        let nobody = queues.nobody.len().min(most);
        heard.extend(queues.nobody.drain(..nobody));
        let frames = queues.intake.take(most);
        heard.extend(frames.into_iter().map(|frame| Heard::Frame {
            subject: frame.subject,
            payload: frame.payload,
        }));
        heard
    }

    /// Waits for batches of logs, and returns some, a sender at a time in turn.
    pub(super) async fn batches(&self, most: usize) -> Vec<Frame> {
        loop {
            let taken = self.queues().batches.take(most);
            if !taken.is_empty() {
                // What stays behind must not wait for the next batch to ring.
                self.batch_bell.notify_one();
                return taken;
            }
            self.batch_bell.notified().await;
        }
    }

    /// Counts a batch that was not understood.
    pub(super) fn offend(&self, sender: Option<NodeName>, kind: &'static str) {
        self.queues().intake.offend(sender, kind, 1);
        self.bell.notify_one();
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the loop hears, with nobody louder than the others.
#[derive(Debug)]
pub struct Hearing {
    ears: Arc<Ears>,
    changes: mpsc::Receiver<Heard>,
}

impl Hearing {
    pub(super) fn new(ears: Arc<Ears>, changes: mpsc::Receiver<Heard>) -> Self {
        Self { ears, changes }
    }

    /// Returns the way to batches of logs, which the loop does not hear.
    pub fn batches(&self) -> Batches {
        Batches::new(Arc::clone(&self.ears))
    }

    /// Waits for something and adds it to `heard`: up to `most` frames, a sender at a time in turn.
    /// Returns whether there will ever be more. Safe to drop and call again.
    pub async fn take(&mut self, heard: &mut Vec<Heard>, most: usize) -> bool {
        loop {
            // First, so that no flood of frames hides that the connection is gone.
            while let Ok(change) = self.changes.try_recv() {
                heard.push(change);
            }
            heard.extend(self.ears.take(most));
            if !heard.is_empty() {
                // What stays behind must not wait for the next frame to ring.
                self.ears.bell.notify_one();
                return true;
            }
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => heard.push(change),
                    None => return false,
                },
                () = self.ears.bell.notified() => {}
            }
        }
    }

    /// Returns all that is here already.
    pub fn rest(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Ok(change) = self.changes.try_recv() {
            heard.push(change);
        }
        heard.extend(self.ears.take(usize::MAX));
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ears() -> (Ears, ReplyTo) {
        let reply_to = ReplyTo::new();
        let filter = "central.>".parse().expect("a filter");
        (Ears::new(filter, reply_to.clone()), reply_to)
    }

    fn message(subject: &str, status: Option<u16>) -> Piece {
        Piece::Message(Message {
            subject: subject.to_owned(),
            status,
            payload: Vec::new(),
        })
    }

    #[test]
    fn only_the_broker_can_say_that_nobody_listens_and_only_of_whom_it_was_asked() {
        let node: NodeName = "ship1".parse().expect("a name");
        let (ears, reply_to) = ears();
        let asked = reply_to.to(&node, 1234);
        let other = asked.replace("ship1", "ship2");
        let later = asked.replace("1234", "9999");
        let bare = format!("{}.ship1.1234", reply_to.prefix);
        for (subject, status, expected) in [
            (
                asked.as_str(),
                Some(503),
                "NoResponders { node: ship1, sent_ms: 1234 }",
            ),
            (&asked, None, "forged_reply"),
            (&asked, Some(409), "forged_reply"),
            (&other, Some(503), "forged_reply"),
            (&later, Some(503), "forged_reply"),
            (&bare, Some(503), "forged_reply"),
            ("central.event.ack.x.ship1", Some(503), "misdirected"),
            ("ship1.event.ack.x.ship1", None, "misdirected"),
            ("central.event.ack.x.ship1", None, "Frame"),
        ] {
            ears.listen(vec![message(subject, status)]);
            let heard = format!("{:?}", ears.take(9)).replace('"', "");
            assert!(heard.contains(expected), "{subject} {status:?}: {heard}");
        }
    }

    #[test]
    fn what_is_no_message_is_left_to_the_client() {
        let (ears, _) = ears();
        let lines = [b"PING\r\n".to_vec(), b"+OK\r\n".to_vec()];
        let others = ears.listen(lines.map(Piece::Other).into());
        assert_eq!(others, b"PING\r\n+OK\r\n");
        assert!(ears.take(9).is_empty());
    }

    #[test]
    fn no_responders_waiting_are_bounded() {
        let node: NodeName = "ship1".parse().expect("a name");
        let (ears, reply_to) = ears();
        for number in 0..2 * NOBODY as u64 {
            ears.listen(vec![message(&reply_to.to(&node, number), Some(503))]);
        }
        assert_eq!(ears.take(usize::MAX).len(), NOBODY);
    }
}
