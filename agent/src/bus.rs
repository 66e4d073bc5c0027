//! The line to the broker: connects for ever, says whether it is up, carries bytes. The only home
//! of the NATS client.
//!
//! It knows frames as bytes and subjects as text. `publish` returning `Ok` proves nothing, so it
//! is only tried while the link is up, and nobody forgets anything because of it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt;
use steward_protocol::{
    NodeName, Uplink,
    broker::{Judgement, judge},
    limits::MAX_FRAME,
    retry::Backoff,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::counters::{Counter, Counters};

/// What is logged unless told otherwise: the client library is quiet, for this module says what matters.
pub const DEFAULT_LOG: &str = "info,async_nats=warn";

/// A dead link is seen after three of these.
const PING: Duration = Duration::from_secs(10);

/// Wait between two tries to connect (the client's own default ends at 4 s and has no jitter).
const RECONNECT: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(300),
};

/// Frames waiting between the client and the supervisor, which only sorts them and never waits.
/// Beyond it the client drops and says so.
const INLET: usize = 1024;

/// Link changes waiting to be looked at; they come seconds apart.
const CHANGES: usize = 64;

/// How long one publish may wait for a link that has become stuck.
const PUBLISH: Duration = Duration::from_secs(2);

/// Pause after a flush that the client refused.
const FLUSH_AGAIN: Duration = Duration::from_secs(1);

/// Room in a frame for everything around an answer.
pub const FRAME_MARGIN: usize = 8 * 1024;

/// Where the broker is and how to get in.
#[derive(Debug, Clone)]
pub struct Address {
    /// Its URLs, separated by commas.
    pub urls: String,
    /// The credentials file, if there is one.
    pub creds: Option<PathBuf>,
    /// Who connects.
    pub node: NodeName,
}

/// Whether the broker can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It cannot, or not yet.
    Down,
    /// It can.
    Up {
        /// Rises with every connection.
        generation: u64,
        /// The largest payload the server takes.
        max_payload: usize,
    },
    /// It is there and is not used; says why.
    Refused(String),
}

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The credentials cannot be read.
    #[error("read the broker credentials {}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The client refused the address or the subscription.
    #[error("use the broker at {urls}: {detail}")]
    Client {
        /// The address, without what it may hold of secrets.
        urls: String,
        /// What the client said; its errors print their own sources.
        detail: String,
    },
}

/// Why something could not be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The broker is away.
    #[error("send {subject}: the broker is away")]
    Away {
        /// Where to.
        subject: Uplink,
    },
    /// The client refused.
    #[error("send {subject}: {detail}")]
    Client {
        /// Where to.
        subject: Uplink,
        /// What it said.
        detail: String,
    },
}

/// Says things, and tells whether anybody can hear them.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    link: watch::Receiver<Link>,
}

/// Something that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// On which subject, as text from outside.
    pub subject: String,
    /// What, as bytes from outside.
    pub payload: Vec<u8>,
}

/// Everything addressed to this node.
#[derive(Debug)]
pub struct Inlet {
    frames: Subscriber,
}

impl Inlet {
    /// Returns the next frame, or nothing when the subscription is lost. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Arrived> {
        let message = self.frames.next().await?;
        // One byte more than allowed is enough to be found too large.
        let kept = message.payload.len().min(MAX_FRAME + 1);
        Some(Arrived {
            subject: message.subject.to_string(),
            payload: message.payload.get(..kept).unwrap_or_default().to_vec(),
        })
    }
}

impl Bus {
    /// Starts connecting, for ever, and subscribes to everything addressed to the node.
    ///
    /// # Errors
    ///
    /// Fails when the credentials or the address cannot be used; not when the broker is away.
    pub async fn open(
        address: &Address,
        counters: Arc<Counters>,
    ) -> Result<(Self, Inlet), BusError> {
        let (changes, changed) = mpsc::channel(CHANGES);
        let options = options(address, changes, Arc::clone(&counters)).await?;
        let client_error = |detail: String| BusError::Client {
            urls: without_secrets(&address.urls),
            detail,
        };
        let servers: Vec<&str> = address.urls.split(',').map(str::trim).collect();
        let client = options
            .connect(servers)
            .await
            .map_err(|error| client_error(error.to_string()))?;
        let frames = client
            .subscribe(format!("{}.>", address.node))
            .await
            .map_err(|error| client_error(error.to_string()))?;
        let (sender, link) = watch::channel(Link::Down);
        tokio::spawn(tend(client.clone(), changed, sender, counters));
        Ok((Self { client, link }, Inlet { frames }))
    }

    /// Returns the state of the link, to be watched.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Returns how large the JSON of an answer's outputs may be.
    pub fn answer_limit(&self) -> usize {
        let payload = match &*self.link.borrow() {
            Link::Up { max_payload, .. } => *max_payload,
            Link::Down | Link::Refused(_) => MAX_FRAME,
        };
        payload.min(MAX_FRAME).saturating_sub(FRAME_MARGIN)
    }

    /// Hands a frame to the broker, if it is there.
    ///
    /// # Errors
    ///
    /// Fails when the link is down or stuck. Success is no proof of arrival.
    pub async fn send(&self, subject: &Uplink, frame: Vec<u8>) -> Result<(), SendError> {
        let up = matches!(&*self.link.borrow(), Link::Up { .. });
        if !up {
            return Err(SendError::Away {
                subject: subject.clone(),
            });
        }
        let publish = self.client.publish(subject.to_string(), frame.into());
        match tokio::time::timeout(PUBLISH, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SendError::Client {
                subject: subject.clone(),
                detail: error.to_string(),
            }),
            Err(_) => Err(SendError::Away {
                subject: subject.clone(),
            }),
        }
    }

    /// Waits until everything said so far has left this program, but not longer than `most`.
    pub async fn flush(&self, most: Duration) {
        let up = matches!(&*self.link.borrow(), Link::Up { .. });
        if up {
            // Nothing depends on it: what is not confirmed is said again.
            drop(tokio::time::timeout(most, self.client.flush()).await);
        }
    }
}

/// Returns the address as it may be shown: without user and password.
pub fn without_secrets(urls: &str) -> String {
    let shown: Vec<String> = urls
        .split(',')
        .map(|url| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => url.to_owned(),
        })
        .collect();
    shown.join(",")
}

/// A change of the link, as the client tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Connected,
    Disconnected,
}

async fn options(
    address: &Address,
    changes: mpsc::Sender<Change>,
    counters: Arc<Counters>,
) -> Result<ConnectOptions, BusError> {
    let first = AtomicBool::new(true);
    let last_error = Arc::new(Mutex::new(String::new()));
    let mut options = ConnectOptions::new()
        .name(format!("steward-agent {}", address.node))
        .custom_inbox_prefix(format!("_INBOX_{}", address.node))
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING)
        .subscription_capacity(INLET)
        .reconnect_delay_callback(move |attempt| {
            if first.swap(false, Ordering::Relaxed) {
                return Duration::ZERO;
            }
            let attempt = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
            RECONNECT.full_jitter(attempt, dice())
        })
        .event_callback(move |event| {
            let changes = changes.clone();
            note(&event, &counters, &last_error);
            async move {
                let change = match event {
                    Event::Connected => Change::Connected,
                    Event::Disconnected | Event::Closed => Change::Disconnected,
                    _ => return,
                };
                // The other end lives as long as the client.
                changes.send(change).await.ok();
            }
        });
    if let Some(path) = &address.creds {
        options = options
            .credentials_file(path)
            .await
            .map_err(|source| BusError::Credentials {
                path: path.clone(),
                source,
            })?;
    }
    Ok(options)
}

/// Logs what the client reports; the same error only once in a row, because it comes with every try.
fn note(event: &Event, counters: &Counters, last: &Mutex<String>) {
    match event {
        Event::SlowConsumer(_) => counters.note(Counter::SlowConsumer, event),
        Event::ServerError(_) | Event::ClientError(_) => {
            let text = event.to_string();
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last != text {
                tracing::warn!(detail = text, "the broker connection reports an error");
                *last = text;
            }
        }
        _ => {}
    }
}

/// Follows the link: judges the server of every connection before anything is said over it.
async fn tend(
    client: Client,
    mut changed: mpsc::Receiver<Change>,
    link: watch::Sender<Link>,
    counters: Arc<Counters>,
) {
    let mut generation = 0;
    let mut warned = String::new();
    let mut news = None;
    loop {
        let change = match news.take() {
            Some(change) => change,
            None => match changed.recv().await {
                Some(change) => change,
                None => return,
            },
        };
        if change == Change::Disconnected {
            link.send_replace(Link::Down);
            tracing::warn!("the broker is away; what runs goes on, and what is to be said is kept");
            continue;
        }
        // The event comes before the client uses the connection; once this returns, the
        // subscription has been sent and what is known of the server is of this connection.
        // On a thin link that can take minutes, behind what the client still holds.
        tokio::select! {
            () = flushed(&client) => {}
            change = changed.recv() => match change {
                Some(change) => {
                    news = Some(change);
                    continue;
                }
                None => return,
            },
        }
        let info = client.server_info();
        match judge(&info.version) {
            Judgement::Refuse(sentence) => {
                tracing::error!("{sentence}");
                link.send_replace(Link::Refused(sentence));
                continue;
            }
            Judgement::Warn(sentence) => {
                if warned != info.version {
                    tracing::warn!("{sentence}");
                    warned.clone_from(&info.version);
                }
            }
            Judgement::Fine => {}
        }
        generation += 1;
        if generation > 1 {
            counters.count(Counter::Reconnects);
        }
        tracing::info!(version = info.version, "connected to the broker");
        link.send_replace(Link::Up {
            generation,
            max_payload: info.max_payload,
        });
    }
}

/// Returns when everything handed to the client so far has left.
async fn flushed(client: &Client) {
    while client.flush().await.is_err() {
        tokio::time::sleep(FLUSH_AGAIN).await;
    }
}

/// Returns a random number.
pub(crate) fn dice() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Both halves have fixed bits, at different places.
    high ^ low.rotate_left(17)
}
