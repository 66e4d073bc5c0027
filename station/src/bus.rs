//! The broker: the only place that knows NATS.
//!
//! It carries bytes between subjects and the station's loop, and says whether it can. It does not
//! know what the bytes mean. `publish` returning `Ok` proves nothing, so nothing here reports success.

use std::{fmt, path::PathBuf, time::Duration};

use async_nats::{Client, ConnectOptions, Event, Subscriber, connection::State};
use futures_util::StreamExt;
use jiff::Timestamp;
use steward_protocol::{NodeName, SubjectFilter, broker, limits, retry::Backoff};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::view::BrokerView;

/// Frames waiting for the loop. Nodes say again what was not confirmed, so a short queue loses time, not facts.
const INCOMING: usize = 1024;

/// Frames waiting to be written. The loop waits for room, so this only evens out bursts.
const OUTGOING: usize = 1024;

/// Messages the client holds per subscription before it drops; see [`INCOMING`].
const SUBSCRIPTION: usize = 2048;

/// The loop waits this long for room in the outgoing queue; what then is dropped is due again later.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(2);

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
    },
}

/// Something to be published.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom; a reply is only ever the broker's word that nobody listens.
    pub node: NodeName,
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
    outgoing: mpsc::Sender<Outgoing>,
    view: watch::Receiver<BrokerView>,
    client: Client,
}

impl Bus {
    /// Hands a frame to the broker, waiting a moment for room. Returns whether it was taken.
    pub async fn publish(&self, outgoing: Outgoing) -> bool {
        self.outgoing
            .send_timeout(outgoing, PUBLISH_PATIENCE)
            .await
            .is_ok()
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
        // Nobody depends on the outcome: what did not leave is due again after the restart.
        tokio::time::timeout(patience, self.client.flush())
            .await
            .ok();
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
        .subscribe(format!("{inbox}.*"))
        .await
        .map_err(|error| setup(&error))?;

    let (heard, incoming) = mpsc::channel(INCOMING);
    let (outgoing, to_write) = mpsc::channel(OUTGOING);
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
    tokio::spawn(write_frames(client.clone(), inbox, to_write, view.clone()));
    Ok((
        Bus {
            outgoing,
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
            payload: message.payload.to_vec(),
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
        let Some((_, node)) = message.subject.rsplit_once('.') else {
            continue;
        };
        let Ok(node) = node.parse() else { continue };
        if heard.send(Heard::NoResponders { node }).await.is_err() {
            return;
        }
    }
}

async fn write_frames(
    client: Client,
    inbox: String,
    mut to_write: mpsc::Receiver<Outgoing>,
    view: watch::Receiver<BrokerView>,
) {
    while let Some(Outgoing {
        node,
        subject,
        payload,
    }) = to_write.recv().await
    {
        // While disconnected the client would buffer it and deliver it long after its time.
        let usable = view.borrow().connected && client.connection_state() == State::Connected;
        if !usable {
            continue;
        }
        let reply = format!("{inbox}.{node}");
        if let Err(error) = client
            .publish_with_reply(subject, reply, payload.into())
            .await
        {
            tracing::warn!(node = %node, %error, "a frame could not be published; it is due again later");
        }
    }
}
