//! The broker: the only place that knows NATS.
//!
//! It carries bytes between subjects and the station's loop, and says whether it can. It does not
//! know what the bytes mean. `publish` returning `Ok` proves nothing, so nothing here reports success.

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
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::view::BrokerView;

/// Frames waiting for the loop. Nodes say again what was not confirmed, so a short queue loses time, not facts.
const INCOMING: usize = 1024;

/// Bytes of frames waiting to be written: room for a message to tens of thousands of nodes. The loop
/// never waits for room; what finds none is due again later.
const OUTGOING_BYTES: usize = 64 * 1024 * 1024;

/// What a frame costs beside its payload, so that small ones are bounded too.
const FRAME_COST: usize = 512;

/// Frames inside the client. Few, because after a reconnection they leave long after their time.
const CLIENT_COMMANDS: usize = 32;

/// Messages the client holds per subscription before it drops; see [`INCOMING`].
const SUBSCRIPTION: usize = 2048;

/// A dead link is seen after three of these.
const PING: Duration = Duration::from_secs(10);

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

    /// Writes out what is buffered, as far as the broker takes it within `patience`.
    pub async fn flush(&self, patience: Duration) {
        let written = async {
            while self.waiting.load(Ordering::Relaxed) > 0 && self.view.borrow().connected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.client.flush().await
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
pub async fn connect(address: Address) -> Result<(Bus, mpsc::Receiver<Heard>), BusError> {
    let (event_sender, events) = mpsc::channel(64);
    let client = client(&address, event_sender).await?;
    let inbox = format!("_INBOX.{}", Uuid::new_v4().simple());
    let setup = |error: &dyn fmt::Display| BusError::Setup {
        url: address.shown.clone(),
        text: error.to_string(),
    };
    let filter = SubjectFilter::addressed_to(&address.name);
    let frames = client
        .subscribe(filter.to_string())
        .await
        .map_err(|error| setup(&error))?;
    let replies = client
        .subscribe(format!("{inbox}.>"))
        .await
        .map_err(|error| setup(&error))?;

    let (heard, incoming) = mpsc::channel(INCOMING);
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
    tokio::spawn(follow_connection(
        client.clone(),
        events,
        view_sender,
        heard.clone(),
    ));
    tokio::spawn(read_frames(frames, filter, heard.clone()));
    tokio::spawn(read_replies(replies, heard));
    let writer = Writer {
        client: client.clone(),
        inbox,
        waiting: Arc::clone(&waiting),
        view: view.clone(),
    };
    tokio::spawn(writer.write(to_write));
    Ok((
        Bus {
            outgoing,
            waiting,
            view,
            client,
        },
        incoming,
    ))
}

async fn client(address: &Address, events: mpsc::Sender<Event>) -> Result<Client, BusError> {
    let options = ConnectOptions::new()
        .name(format!("steward station {}", address.name))
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
    let servers: Vec<&str> = address.url.split(',').map(str::trim).collect();
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
async fn follow_connection(
    client: Client,
    mut events: mpsc::Receiver<Event>,
    view: watch::Sender<BrokerView>,
    heard: mpsc::Sender<Heard>,
) {
    let mut warned: Option<String> = None;
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected => {
                let version = client.server_info().version;
                let judgement = broker::judge(&version);
                let refused = match judgement {
                    broker::Judgement::Fine => None,
                    broker::Judgement::Warn(sentence) => {
                        if warned.as_ref() != Some(&sentence) {
                            tracing::warn!("{sentence}");
                            warned = Some(sentence);
                        }
                        None
                    }
                    broker::Judgement::Refuse(sentence) => {
                        tracing::error!("{sentence}");
                        Some(sentence)
                    }
                };
                let usable = refused.is_none();
                set(&view, usable, Some(version), refused);
                if usable {
                    tracing::info!("connected to the broker");
                    heard.send(Heard::Connected).await.ok();
                }
            }
            Event::Disconnected | Event::Closed => {
                set(
                    &view,
                    false,
                    None,
                    Some("the connection was lost".to_owned()),
                );
                tracing::warn!("disconnected from the broker");
                heard.send(Heard::Disconnected).await.ok();
            }
            Event::ClientError(error) => {
                let text = error.to_string();
                view.send_if_modified(|view| {
                    if !view.connected {
                        view.reason = Some(text.clone());
                    }
                    !view.connected
                });
                tracing::debug!(error = text, "broker client");
            }
            Event::SlowConsumer(_) => {
                tracing::warn!("frames came faster than they were read; some were dropped")
            }
            Event::ServerError(error) => tracing::warn!(%error, "the broker complains"),
            Event::LameDuckMode | Event::Draining => tracing::info!(%event, "broker"),
        }
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

async fn read_frames(mut frames: Subscriber, filter: SubjectFilter, heard: mpsc::Sender<Heard>) {
    while let Some(message) = frames.next().await {
        // A reply subject elsewhere can make a broker deliver what was never addressed to us.
        if !filter.matches(&message.subject) {
            continue;
        }
        let frame = Heard::Frame {
            subject: message.subject.to_string(),
            // A frame that is too large is cut where the decoder still sees that it was.
            payload: message.payload[..message.payload.len().min(limits::MAX_FRAME + 1)].to_vec(),
        };
        if heard.send(frame).await.is_err() {
            return;
        }
    }
}

/// Nobody answers a reply-to; the only thing that comes is the broker's "no responders".
async fn read_replies(mut replies: Subscriber, heard: mpsc::Sender<Heard>) {
    while let Some(message) = replies.next().await {
        if message.status != Some(async_nats::StatusCode::NO_RESPONDERS) {
            continue;
        }
        let mut tokens = message.subject.rsplit('.');
        let (Some(sent_ms), Some(node)) = (tokens.next(), tokens.next()) else {
            continue;
        };
        let (Ok(sent_ms), Ok(node)) = (sent_ms.parse(), node.parse()) else {
            continue;
        };
        let nobody = Heard::NoResponders { node, sent_ms };
        if heard.send(nobody).await.is_err() {
            return;
        }
    }
}

/// Writes the outgoing queue to the client, as long as there is a connection.
struct Writer {
    client: Client,
    inbox: String,
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
        let reply = format!("{}.{node}.{sent_ms}", self.inbox);
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
