//! Transfers at the station: outputs and files of nodes come in, files go out.
//!
//! ```text
//! loop ─ frame ─▶ desk ─ Heard ─▶ lane (one task per transfer) ─▶ disk, bus
//! API  ─ attach ─▶ desk ─▶ the lane's progress, to be watched
//! ```
//!
//! It runs beside the loop, which only passes frames on and never waits. Nothing of it is kept in
//! memory that matters: what is wanted follows from the ledger, and how far it is from the disk.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use steward_protocol::{
    Digest, Domain, Frame, MessageId, Method, NodeName, Origin, Uplink,
    transfer::{Failed, Failure, Packet, Passage, Transfer, Want, What},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet, block_in_place},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    lane::{Heard, Lane},
    offences::Offences,
};
use crate::{
    bus::{self, Bus},
    station::chain,
    store::{Carriage, Reader, StoreError},
};

pub mod files;
mod janitor;
mod lane;
mod offences;
mod receive;
mod results;
mod serve;
pub mod shelf;

pub use self::lane::{Ended, Progress};

/// Frames waiting for the desk, which only sorts them: 16 MiB of chunks at most.
const FRAMES: usize = 256;

/// Questions of the API waiting for the desk.
const ASKS: usize = 64;

/// Words waiting for one lane: the chunks of a whole window, and some more.
const MAILBOX: usize = 48;

/// Transfers at once, of all nodes and of one. What finds no room is offered or asked for again.
const MAX_LANES: usize = 256;
const MAX_OF_NODE: usize = 32;

/// Bytes per second that one node is asked for: below what the intake takes from one sender.
const RATE: u64 = 16 << 20;

/// How often what is not needed any more is removed.
const TIDY: Duration = Duration::from_secs(300);

/// What transfers need to know.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The way to the broker.
    pub bus: Bus,
    /// Who speaks.
    pub passage: Passage,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// The station's state directory.
    pub state_dir: PathBuf,
    /// Most bytes of outputs kept in all, and of one output.
    pub outputs_bytes: u64,
    paces: Arc<Mutex<HashMap<NodeName, Instant>>>,
    offences: Offences,
}

impl Ground {
    /// Returns the ground of a station that keeps its state in `state_dir`.
    pub fn new(bus: Bus, passage: Passage, ledger: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            bus,
            passage,
            ledger,
            state_dir,
            outputs_bytes: u64::MAX,
            paces: Arc::default(),
            offences: Offences::default(),
        }
    }

    /// Reads what the ledger knows of a delivery.
    fn carriage(&self, key: &Key) -> Result<Option<Carriage>, StoreError> {
        block_in_place(|| Reader::open(&self.ledger)?.carriage(key.transfer.id, &key.node))
    }

    /// Waits until `bytes` more may be asked of a node.
    async fn pace(&self, node: &NodeName, bytes: u64) {
        let time = Duration::from_millis(bytes.saturating_mul(1000) / RATE);
        let now = Instant::now();
        let at = {
            let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
            paces.retain(|_, at| *at > now);
            let at = paces.get(node).copied().unwrap_or(now).max(now);
            paces.insert(node.clone(), at + time);
            at
        };
        sleep_until(at).await;
    }
}

/// One transfer of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) node: NodeName,
    pub(crate) transfer: Transfer,
}

/// Whose output somebody wants to watch.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The node.
    pub node: NodeName,
    /// The message.
    pub id: MessageId,
    /// Digest of its order.
    pub digest: Digest,
}

/// A question to the desk.
struct Attach {
    key: Key,
    answer: oneshot::Sender<Option<watch::Receiver<Progress>>>,
}

/// A frame as it arrived.
struct Arrived {
    subject: String,
    payload: Vec<u8>,
}

/// The way to the desk.
#[derive(Debug, Clone)]
pub struct Transfers {
    frames: mpsc::Sender<Arrived>,
    asks: mpsc::Sender<Attach>,
    dropped: Arc<AtomicU64>,
    offences: Offences,
}

impl Transfers {
    /// Tells whether a subject is about a transfer.
    pub fn concern(subject: &str) -> bool {
        let mut tokens = subject.split('.').skip(1);
        let (kind, method) = (tokens.next(), tokens.next());
        kind == Some("event")
            && [Method::Output, Method::Want]
                .iter()
                .any(|known| method == Some(known.as_str()))
    }

    /// Passes a frame on without waiting. What finds no room is dropped: it is said again.
    pub fn hear(&self, subject: String, payload: Vec<u8>) {
        if self.frames.try_send(Arrived { subject, payload }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many frames found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns how often whom what was not believed of since the last call.
    pub fn take_offences(&self) -> BTreeMap<(Option<NodeName>, &'static str), u64> {
        self.offences.take()
    }

    /// Begins to fetch an output, if it is not being fetched, and returns how far it is. Nothing when
    /// there are too many transfers, or the station is ending.
    pub async fn attach(&self, wish: Wish) -> Option<watch::Receiver<Progress>> {
        let (answer, waiting) = oneshot::channel();
        let key = Key {
            node: wish.node,
            transfer: Transfer {
                id: wish.id,
                digest: wish.digest,
                what: What::Output,
            },
        };
        self.asks.send(Attach { key, answer }).await.ok()?;
        waiting.await.ok().flatten()
    }
}

struct Slot {
    mailbox: mpsc::Sender<Heard>,
    progress: watch::Receiver<Progress>,
}

/// Passes frames to the lanes, and begins and ends these.
pub struct Desk {
    ground: Ground,
    frames: mpsc::Receiver<Arrived>,
    asks: mpsc::Receiver<Attach>,
    lanes: HashMap<Key, Slot>,
    tasks: JoinSet<()>,
    keys: HashMap<Id, Key>,
    warned: bool,
}

/// Returns the desk and the way to it.
pub fn open(ground: Ground) -> (Desk, Transfers) {
    let (frame_sender, frames) = mpsc::channel(FRAMES);
    let (ask_sender, asks) = mpsc::channel(ASKS);
    let offences = ground.offences.clone();
    let desk = Desk {
        ground,
        frames,
        asks,
        lanes: HashMap::new(),
        tasks: JoinSet::new(),
        keys: HashMap::new(),
        warned: false,
    };
    let transfers = Transfers {
        frames: frame_sender,
        asks: ask_sender,
        dropped: Arc::default(),
        offences,
    };
    (desk, transfers)
}

/// Why a lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The node said something.
    Heard,
    /// Somebody here asks.
    Asked,
}

impl Desk {
    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(attach) = self.asks.recv() => self.attach(attach),
                Some(arrived) = self.frames.recv() => self.arrived(&arrived),
                _ = tidy.tick() => {
                    let ground = self.ground.clone();
                    // It ends by itself; the next one comes only after a while.
                    tokio::task::spawn_blocking(move || janitor::tidy(&ground));
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a transfer failed; it begins again when it is offered or asked for");
                error.id()
            }
        };
        if let Some(key) = self.keys.remove(&id) {
            self.lanes.remove(&key);
        }
    }

    fn attach(&mut self, attach: Attach) {
        let progress = self
            .lane(&attach.key, Cause::Asked)
            .map(|slot| slot.progress.clone());
        // Whoever asked may have gone away.
        drop(attach.answer.send(progress));
    }

    fn arrived(&mut self, arrived: &Arrived) {
        let (key, domain, heard) = match read(arrived) {
            Ok(read) => read,
            Err((kind, reason)) => {
                let sender = bus::sender_of(arrived.subject.as_bytes());
                self.ground.offences.note(sender.as_ref(), kind);
                if !std::mem::replace(&mut self.warned, true) {
                    let subject: String = arrived.subject.escape_default().take(200).collect();
                    tracing::warn!(
                        subject,
                        reason,
                        "a frame of a transfer was not understood; more are only counted"
                    );
                }
                return;
            }
        };
        let wanted = match &heard {
            Heard::Chunk(..) => true,
            // Whoever is done needs no lane.
            Heard::Want(want) => lane::asks(want),
        };
        if !wanted && !self.lanes.contains_key(&key) {
            return;
        }
        tracing::trace!(node = %key.node, id = %key.transfer.id, %domain, "a frame of a transfer");
        if let Some(slot) = self.lane(&key, Cause::Heard) {
            // A full mailbox is a gap, which is asked for again.
            drop(slot.mailbox.try_send(heard));
        }
    }

    /// Returns the lane of a transfer, which is begun if there is none.
    fn lane(&mut self, key: &Key, cause: Cause) -> Option<&Slot> {
        if !self.lanes.contains_key(key) {
            let of_node = self
                .lanes
                .keys()
                .filter(|known| known.node == key.node)
                .count();
            if self.lanes.len() >= MAX_LANES || of_node >= MAX_OF_NODE {
                return None;
            }
            let (mailbox, heard) = mpsc::channel(MAILBOX);
            let (sender, progress) = watch::channel(Progress::default());
            let lane = Lane::new(self.ground.clone(), key.clone(), heard, sender);
            let task = self.tasks.spawn(lane.run(cause));
            self.keys.insert(task.id(), key.clone());
            self.lanes.insert(key.clone(), Slot { mailbox, progress });
        }
        self.lanes.get(key)
    }
}

/// Reads a frame; one that cannot be read is counted as something, and has a reason.
fn read(arrived: &Arrived) -> Result<(Key, Domain, Heard), (&'static str, String)> {
    let Uplink { address, sender } = arrived
        .subject
        .parse()
        .map_err(|error| (offences::GARBAGE_SUBJECT, format!("the subject {error}")))?;
    let heard = match Method::from_name(&address.method) {
        Some(Method::Output) => {
            let packet = Packet::<Origin>::decode(&arrived.payload)
                .map_err(|error| (offences::GARBAGE_OUTPUT, format!("the chunk {error}")))?;
            Heard::Chunk(packet.chunk, packet.bytes)
        }
        _ => {
            let frame = Frame::<Origin, Want>::decode(&arrived.payload)
                .map_err(|error| (offences::GARBAGE_WANT, format!("the want {error}")))?;
            Heard::Want(frame.body)
        }
    };
    let transfer = match &heard {
        Heard::Chunk(chunk, _) => chunk.transfer,
        Heard::Want(want) => want.transfer,
    };
    let key = Key {
        node: sender,
        transfer,
    };
    Ok((key, address.domain, heard))
}

/// Returns the failure that a broken ledger is.
fn ledger(error: &StoreError) -> Failed {
    Failed::new(Failure::Storage, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_and_wants_concern_transfers() {
        for (subject, expected) in [
            ("central.event.output.operatingsystem.ship1", true),
            ("central.event.want.files.ship1", true),
            ("central.event.ack.operatingsystem.ship1", false),
            ("central.command.output.operatingsystem.ship1", false),
            ("central", false),
        ] {
            assert_eq!(Transfers::concern(subject), expected, "{subject}");
        }
    }
}
