//! The broker: the only place that knows NATS.
//!
//! It carries bytes between subjects and the station's loop, and says whether it can. It does not
//! know what the bytes mean. `publish` returning `Ok` proves nothing, so nothing here reports success.
//! What arrives does not pass through the client library: see `bus/relay.rs`.

mod batches;
mod dial;
mod ears;
mod intake;
mod relay;
mod wire;

pub use batches::{Batch, Batches};
pub use ears::Hearing;
pub(crate) use wire::sender_of;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, Subscriber, connection::State};
use futures_util::StreamExt;
use jiff::Timestamp;
use steward_protocol::{NodeName, SubjectFilter, broker, limits, retry::Backoff};
use tokio::sync::{Mutex, mpsc, watch};
use uuid::Uuid;

use crate::{
    bus::{
        dial::Target,
        ears::{Ears, ReplyTo, secret},
        relay::{Gate, Relay, RelayParts},
    },
    view::BrokerView,
};

/// Changes of the connection waiting for the loop; they come seconds apart.
const CHANGES: usize = 64;

/// Bytes of frames waiting to be written: room for a message to tens of thousands of nodes. The loop
/// never waits for room; what finds none is due again later.
const OUTGOING_BYTES: usize = 64 * 1024 * 1024;

/// What a frame costs beside its payload, so that small ones are bounded too.
const FRAME_COST: usize = 512;

/// Frames inside the client. Few, because after a reconnection they leave long after their time.
const CLIENT_COMMANDS: usize = 32;

/// Messages the client holds per subscription. It gets none: the relay takes them out.
const SUBSCRIPTION: usize = 1;

/// A dead link is seen after three of these.
const PING: Duration = Duration::from_secs(10);

/// How long a frame of bulk may take to leave before it is given up.
const LEAVE: Duration = Duration::from_secs(10);

/// Waits between attempts to connect.
const RECONNECT: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(300),
};

/// Why there can be no connection at all.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The credentials file cannot be used.
    #[error("read the broker credentials {}: {text}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The client refused its options, such as an address that is none.
    #[error("set up the connection to the broker at {url}: {text}")]
    Setup {
        /// The address given.
        url: String,
        /// What is wrong; the client's error prints its own cause.
        text: String,
    },
}

/// What comes from the broker.
#[derive(Debug)]
pub enum Heard {
    /// The broker is there.
    Connected,
    /// The broker is gone.
    Disconnected,
    /// Somebody said something to this station.
    Frame {
        /// Where it arrived.
        subject: String,
        /// What.
        payload: Vec<u8>,
    },
    /// Nobody listens for this node.
    NoResponders {
        /// The node.
        node: NodeName,
        /// When it was spoken to, in milliseconds of the loop's monotonic time.
        sent_ms: u64,
    },
    /// Somebody sent what was dropped unread.
    Offence {
        /// Who, as far as the subject names a sender.
        sender: Option<NodeName>,
        /// What was wrong: a short word for counting.
        kind: &'static str,
        /// How many frames.
        count: u64,
    },
}

/// Something to be published.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom; a reply is only ever the broker's word that nobody listens.
    pub node: NodeName,
    /// When, in milliseconds of the loop's monotonic time.
    pub sent_ms: u64,
    /// Where.
    pub subject: String,
    /// What.
    pub payload: Vec<u8>,
}

/// Who this station is on the broker, and where that is.
#[derive(Debug, Clone)]
pub struct Address {
    /// The station's name.
    pub name: NodeName,
    /// The broker's address, or several with commas.
    pub url: String,
    /// The address without credentials, for people.
    pub shown: String,
    /// The credentials file.
    pub creds: Option<PathBuf>,
}

/// The sending side.
#[derive(Debug, Clone)]
pub struct Bus {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Bytes in the outgoing queue, bounded by [`OUTGOING_BYTES`].
    waiting: Arc<AtomicUsize>,
    view: watch::Receiver<BrokerView>,
    client: Client,
    /// Held while bulk leaves.
    bulk: Arc<Mutex<()>>,
    /// Connections between the client and the broker, one number per configured address.
    open: Vec<watch::Receiver<usize>>,
}

impl Bus {
    /// Queues a frame for the broker without waiting. Returns whether there was room.
    pub fn publish(&self, outgoing: Outgoing) -> bool {
        let cost = cost(&outgoing);
        let before = self.waiting.fetch_add(cost, Ordering::Relaxed);
        if before + cost > OUTGOING_BYTES || self.outgoing.send(outgoing).is_err() {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Hands over bulk, one frame at a time, and waits until it has left: whatever else is said
    /// waits for one of them at most. Returns whether it left; nobody need know that it arrived.
    pub async fn bulk(&self, outgoing: Outgoing) -> bool {
        let _turn = self.bulk.lock().await;
        if !self.view.borrow().connected {
            return false;
        }
        let left = async {
            let published = self
                .client
                .publish(outgoing.subject, outgoing.payload.into());
            published.await.is_ok() && self.client.flush().await.is_ok()
        };
        tokio::time::timeout(LEAVE, left).await.unwrap_or(false)
    }

    /// Returns what is known of the connection, to be watched.
    pub fn watch(&self) -> watch::Receiver<BrokerView> {
        self.view.clone()
    }

    /// Returns what is known of the connection.
    pub fn view(&self) -> BrokerView {
        self.view.borrow().clone()
    }

    /// Returns the largest payload that can travel now, in bytes.
    pub fn max_payload(&self) -> usize {
        match self.client.server_info().max_payload {
            0 => limits::MAX_FRAME,
            bytes => bytes.min(limits::MAX_FRAME),
        }
    }

    /// Writes out what is buffered, as far as the broker takes it within `patience`, and ends the
    /// connection.
    pub async fn close(&self, patience: Duration) {
        let written = async {
            while self.waiting.load(Ordering::Relaxed) > 0 && self.view.borrow().connected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Only the end of the connection says that the relay has passed on all of it.
            if self.client.flush().await.is_ok() && self.client.drain().await.is_ok() {
                for open in &self.open {
                    open.clone().wait_for(|open| *open == 0).await.ok();
                }
            }
        };
        // Nobody depends on the outcome: what did not leave is due again after the restart.
        tokio::time::timeout(patience, written).await.ok();
    }
}

/// Connects, for ever. Returns the sending side and what is heard.
///
/// # Errors
///
/// Fails only when the address or the credentials can never work; an absent broker is waited for.
pub async fn connect(address: Address) -> Result<(Bus, Hearing), BusError> {
    let (event_sender, events) = mpsc::channel(64);
    let setup = |error: &dyn fmt::Display| BusError::Setup {
        url: address.shown.clone(),
        text: error.to_string(),
    };
    let filter = SubjectFilter::addressed_to(&address.name);
    let reply_to = ReplyTo::new();
    let ears = Arc::new(Ears::new(filter.clone(), reply_to.clone()));
    let (trouble, troubles) = watch::channel(None);
    let doors = doors(&address, &ears, trouble)?;
    let client = client(&address, &doors, event_sender).await?;
    for subject in [filter.to_string(), reply_to.listen()] {
        let heard = client
            .subscribe(subject)
            .await
            .map_err(|error| setup(&error))?;
        tokio::spawn(keep(heard));
    }

    let (changes, changed) = mpsc::channel(CHANGES);
    let (outgoing, to_write) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let view = BrokerView {
        url: address.shown.clone(),
        connected: false,
        since: Timestamp::now(),
        version: None,
        reason: Some("not connected yet".to_owned()),
    };
    let (view_sender, view) = watch::channel(view);
    let follower = Follower {
        client: client.clone(),
        view: view_sender,
        heard: changes,
        troubles,
        warned: None,
    };
    tokio::spawn(follower.follow(events));
    let writer = Writer {
        client: client.clone(),
        reply_to,
        waiting: Arc::clone(&waiting),
        view: view.clone(),
    };
    tokio::spawn(writer.write(to_write));
    let bus = Bus {
        outgoing,
        waiting,
        view,
        client,
        bulk: Arc::default(),
        open: doors.gates.into_iter().map(|gate| gate.open).collect(),
    };
    Ok((bus, Hearing::new(ears, changed)))
}

/// The client's doors to the brokers.
struct Doors {
    gates: Vec<Gate>,
    /// What the client says at each of them.
    word: String,
    /// Who the addresses say we are.
    login: Option<(String, Option<String>)>,
}

/// Starts a relay for every broker of the configuration.
fn doors(
    address: &Address,
    ears: &Arc<Ears>,
    trouble: watch::Sender<Option<String>>,
) -> Result<Doors, BusError> {
    let setup = |text: String| BusError::Setup {
        url: address.shown.clone(),
        text,
    };
    let trouble = Arc::new(trouble);
    let word = secret();
    let mut doors = Doors {
        gates: Vec::new(),
        word,
        login: None,
    };
    for url in address.url.split(',').map(str::trim) {
        let home = Target::parse(url).ok_or_else(|| setup("it is not an address".to_owned()))?;
        if let (None, Some(user)) = (&doors.login, &home.user) {
            doors.login = Some((user.clone(), home.password.clone()));
        }
        let parts = RelayParts {
            home,
            word: doors.word.clone(),
            name: format!("steward station {}", address.name),
            ears: Arc::clone(ears),
            trouble: Arc::clone(&trouble),
        };
        doors
            .gates
            .push(Relay::start(parts).map_err(|error| setup(error.to_string()))?);
    }
    Ok(doors)
}

/// Keeps a subscription that gets nothing, because the relay takes the messages out.
async fn keep(mut heard: Subscriber) {
    while heard.next().await.is_some() {}
}

async fn client(
    address: &Address,
    doors: &Doors,
    events: mpsc::Sender<Event>,
) -> Result<Client, BusError> {
    let options = ConnectOptions::new()
        .name(&doors.word)
        .ignore_discovered_servers()
        .ping_interval(PING)
        .subscription_capacity(SUBSCRIPTION)
        .client_capacity(CLIENT_COMMANDS)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let attempt = u32::try_from(attempts)
                .unwrap_or(u32::MAX)
                .saturating_sub(1);
            RECONNECT.full_jitter(attempt, dice())
        })
        .event_callback(move |event| {
            let events = events.clone();
            async move {
                // The follower lives as long as the client; a full queue only happens while it ends.
                events.send(event).await.ok();
            }
        });
    let options = match &address.creds {
        None => options,
        Some(path) => {
            options
                .credentials_file(path)
                .await
                .map_err(|error| BusError::Credentials {
                    path: path.clone(),
                    text: error.to_string(),
                })?
        }
    };
    let options = match &doors.login {
        None => options,
        Some((user, Some(password))) => options.user_and_password(user.clone(), password.clone()),
        Some((token, None)) => options.token(token.clone()),
    };
    let gates = doors.gates.iter();
    let servers: Vec<String> = gates
        .map(|gate| format!("nats://{}", gate.address))
        .collect();
    options
        .connect(servers)
        .await
        .map_err(|error| BusError::Setup {
            url: address.shown.clone(),
            text: error.to_string(),
        })
}

/// Returns a random number.
pub fn dice() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

/// Keeps the view of the connection, judges the server's version, and tells the loop.
struct Follower {
    client: Client,
    view: watch::Sender<BrokerView>,
    heard: mpsc::Sender<Heard>,
    /// Why the broker cannot be reached; the client sees only that its relay closed.
    troubles: watch::Receiver<Option<String>>,
    /// What was warned of already.
    warned: Option<String>,
}

impl Follower {
    async fn follow(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected => self.connected().await,
                Event::Disconnected => {
                    let reason = "the connection was lost".to_owned();
                    set(&self.view, false, None, Some(reason));
                    tracing::warn!("disconnected from the broker");
                    self.heard.send(Heard::Disconnected).await.ok();
                }
                Event::Closed => {
                    set(&self.view, false, None, Some("it was closed".to_owned()));
                    self.heard.send(Heard::Disconnected).await.ok();
                }
                Event::ClientError(error) => self.troubled(error.to_string()),
                Event::ServerError(error) => tracing::warn!(%error, "the broker complains"),
                Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining => {
                    tracing::info!(%event, "broker");
                }
            }
        }
    }

    async fn connected(&mut self) {
        let version = self.client.server_info().version;
        let refused = match broker::judge(&version) {
            broker::Judgement::Fine => None,
            broker::Judgement::Warn(sentence) => {
                if self.warned.as_ref() != Some(&sentence) {
                    tracing::warn!("{sentence}");
                    self.warned = Some(sentence);
                }
                None
            }
            broker::Judgement::Refuse(sentence) => {
                tracing::error!("{sentence}");
                Some(sentence)
            }
        };
        let usable = refused.is_none();
        set(&self.view, usable, Some(version), refused);
        if usable {
            tracing::info!("connected to the broker");
            self.heard.send(Heard::Connected).await.ok();
        }
    }

    fn troubled(&self, text: String) {
        let text = self.troubles.borrow().clone().unwrap_or(text);
        self.view.send_if_modified(|view| {
            if !view.connected {
                view.reason = Some(text.clone());
            }
            !view.connected
        });
        tracing::debug!(error = text, "broker client");
    }
}

fn set(
    view: &watch::Sender<BrokerView>,
    connected: bool,
    version: Option<String>,
    reason: Option<String>,
) {
    view.send_modify(|view| {
        if view.connected != connected {
            view.since = Timestamp::now();
        }
        view.connected = connected;
        view.version = version;
        view.reason = reason;
    });
}

/// Writes the outgoing queue to the client, as long as there is a connection.
struct Writer {
    client: Client,
    reply_to: ReplyTo,
    waiting: Arc<AtomicUsize>,
    view: watch::Receiver<BrokerView>,
}

impl Writer {
    async fn write(mut self, mut to_write: mpsc::UnboundedReceiver<Outgoing>) {
        while let Some(outgoing) = to_write.recv().await {
            let cost = cost(&outgoing);
            self.write_one(outgoing).await;
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    async fn write_one(&mut self, outgoing: Outgoing) {
        // While disconnected the client would keep it and deliver it long after its time.
        let usable = self.view.borrow_and_update().connected
            && self.client.connection_state() == State::Connected;
        if !usable {
            return;
        }
        let Outgoing {
            node,
            sent_ms,
            subject,
            payload,
        } = outgoing;
        let reply = self.reply_to.to(&node, sent_ms);
        let published = self
            .client
            .publish_with_reply(subject, reply, payload.into());
        tokio::select! {
            published = published => if let Err(error) = published {
                tracing::warn!(node = %node, %error, "a frame could not be published; it is due again later");
            },
            // The client takes nothing while it reconnects; what was in hand is due again later.
            _ = self.view.wait_for(|view| !view.connected) => {}
        }
    }
}

fn cost(outgoing: &Outgoing) -> usize {
    outgoing.payload.len() + outgoing.subject.len() + FRAME_COST
}
