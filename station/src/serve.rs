//! `steward serve`: starts the parts in order, says when they are ready, and ends them in reverse.

use std::time::Duration;

use jiff::Timestamp;
use steward_protocol::{transfer::Passage, version};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{self, Address, Bus, BusError},
    config::{
        Config,
        outlets::{MIRROR, RelayConfig},
    },
    http::{self, About, Api, HttpError},
    inbox::{Inbox, InboxConfig, InboxError, InboxTiming, Retention},
    logs::{
        self, Logs,
        mirror::{Mirror, Shape},
        outlet::{Choice, Outlet},
        relay::Relay,
    },
    results::Writer,
    signals::Stop,
    sole::{Sole, SoleError},
    station::{Cut, Settings, Station, StationHandle},
    store::{Store, StoreError},
    transfer::{self, Ground, Transfers},
};

/// How long the parts may take to end before the program ends without them.
const GRACE: Duration = Duration::from_secs(10);

/// Why the station cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger.
    #[error("open the ledger")]
    Store(#[source] StoreError),
    /// Another station of this name.
    #[error("start beside another station")]
    Sole(#[source] SoleError),
    /// The broker.
    #[error("use the broker")]
    Bus(#[source] BusError),
    /// The directory of files to be sent.
    #[error("make the directory {} for files to be sent", path.display())]
    Files {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The writer of logs.
    #[error("begin the writer of logs")]
    Logs(#[source] std::io::Error),
    /// The API.
    #[error("serve the API")]
    Http(#[source] HttpError),
    /// The inbox.
    #[error("watch the inbox")]
    Inbox(#[source] InboxError),
    /// A part ended although nobody asked it to.
    #[error("keep the station's {part} going: {why}")]
    Ended {
        /// Which part.
        part: &'static str,
        /// How it ended.
        why: String,
    },
}

/// Serves until told to stop. `ready` is called once, with a line for people, when everything listens.
///
/// # Errors
///
/// Fails when a part cannot start. An absent broker is not such a failure: it is waited for.
pub async fn serve(config: Config, stop: Stop, ready: impl FnOnce(&str)) -> Result<(), ServeError> {
    let shown = config.nats_shown();
    // Held to the end. Before the ledger, whose every opening begins a reign.
    let _sole = Sole::reserve(&config.name, &shown).map_err(ServeError::Sole)?;
    let store = Store::open(&config.state_dir, &config.name).map_err(ServeError::Store)?;
    let ledger = store.path().to_owned();
    let about = about(&config, &store);
    let address = Address {
        name: config.name.clone(),
        url: config.nats.clone(),
        shown,
        creds: config.creds.clone(),
    };
    let (bus, heard) = bus::connect(address).await.map_err(ServeError::Bus)?;
    let (desk, transfers) = transfer::open(ground(&config, &store, bus.clone())?);
    let logs = Logs::new(&config.state_dir);
    let log_ground = log_ground(&config, &store, bus.clone());
    let log_desk =
        logs::open(logs.clone(), log_ground, heard.batches()).map_err(ServeError::Logs)?;
    let (station, handle) = Station::new(
        settings(&config, transfers.clone(), logs.clone()),
        store,
        bus.clone(),
        heard,
    )
    .map_err(ServeError::Store)?;
    let socket = http::bind_socket(&config.socket()).map_err(ServeError::Http)?;
    let port = match config.http {
        Some(address) => Some(http::bind_port(address).await.map_err(ServeError::Http)?),
        None => None,
    };
    let inbox = Inbox::open(inbox_config(&config)).map_err(ServeError::Inbox)?;
    let outlets = Outlets::new(&config, &logs, &handle);

    // Whoever feeds the loop ends before the loop does.
    let mut feeders = JoinSet::new();
    let loop_stop = Stop::new();
    let mut looping = tokio::spawn(station.run(loop_stop.clone()));
    let api = Api::new(handle.clone(), bus, about, inbox.health(), stop.clone())
        .with_transfers(transfers, config.state_dir.clone())
        .with_logs(logs);
    feeders.spawn(http::serve_socket(socket, api.clone()));
    if let Some(port) = port {
        feeders.spawn(http::serve_port(port, api));
    }
    // Told only once it is known here that all is to end: whoever ends before that has failed.
    let inbox_stop = CancellationToken::new();
    let writer = Writer::new(&config.state_dir, ledger, handle.clone());
    feeders.spawn(Box::pin(writer.run(inbox_stop.clone())));
    feeders.spawn(log_desk.run(handle.clone(), inbox_stop.clone()));
    outlets.spawn(&mut feeders, &inbox_stop);
    let accept = move |submission| {
        let handle = handle.clone();
        async move { handle.submit(submission).await }
    };
    feeders.spawn(desk.run(inbox_stop.clone()));
    feeders.spawn(inbox.run(accept, inbox_stop.clone()));
    ready(&ready_line(&config));

    until_told(&stop, &mut looping, &mut feeders).await?;
    inbox_stop.cancel();
    let drained = async {
        while feeders.join_next().await.is_some() {}
        loop_stop.request();
        // How it ended has been logged; there is nothing left to drain then.
        looping.await.ok();
    };
    end(drained, &stop).await;
    Ok(())
}

/// Returns what the station says of itself.
fn about(config: &Config, store: &Store) -> About {
    About {
        name: config.name.clone(),
        ledger_id: store.ledger_id(),
        epoch: store.epoch(),
        started_at: Timestamp::now(),
        ledger: store.path().to_owned(),
        inbox: config.inbox_dir(),
        timing: inbox_config(config).timing,
    }
}

/// Returns what transfers stand on, and makes the directory they send from.
fn ground(config: &Config, store: &Store, bus: Bus) -> Result<Ground, ServeError> {
    transfer::files::prepare(&config.state_dir).map_err(|source| ServeError::Files {
        path: config.state_dir.join(transfer::files::FILES),
        source,
    })?;
    let passage = Passage {
        v: version::CURRENT,
        ledger_id: store.ledger_id(),
        epoch: store.epoch(),
    };
    let mut ground = Ground::new(
        bus,
        passage,
        store.path().to_owned(),
        config.state_dir.clone(),
    );
    ground.outputs_bytes = config.outputs_bytes;
    Ok(ground)
}

/// Returns what logs stand on.
fn log_ground(config: &Config, store: &Store, bus: Bus) -> logs::Ground {
    logs::Ground {
        bus,
        ledger_id: store.ledger_id(),
        epoch: store.epoch(),
        limits: logs::retain::Limits {
            age: config.logs.age,
            bytes: config.logs.bytes,
        },
    }
}

/// Where logs go besides the store.
struct Outlets {
    relays: Vec<Relay>,
    mirror: Option<Mirror>,
}

impl Outlets {
    fn new(config: &Config, logs: &Logs, handle: &StationHandle) -> Self {
        let outlet = |name: &str, choice: &Choice| {
            let parts = (logs.clone(), handle.clone());
            Outlet::new(name, choice.clone(), &config.state_dir, parts)
        };
        let relay = |relay: &RelayConfig| {
            Relay::new(outlet(&relay.name, &relay.choice), relay.address.clone())
        };
        let mirror =
            |shape: &Shape| Mirror::new(outlet(MIRROR, &Choice::everything()), shape.clone());
        Self {
            relays: config.relays.iter().map(relay).collect(),
            mirror: config.mirror.as_ref().map(mirror),
        }
    }

    fn spawn(self, feeders: &mut JoinSet<()>, stop: &CancellationToken) {
        for relay in self.relays {
            feeders.spawn(relay.run(stop.clone()));
        }
        if let Some(mirror) = self.mirror {
            feeders.spawn(mirror.run(stop.clone()));
        }
    }
}

fn settings(config: &Config, transfers: Transfers, logs: Logs) -> Settings {
    Settings {
        name: config.name.clone(),
        max_open: usize::try_from(config.max_open_deliveries).unwrap_or(usize::MAX),
        keep_for: config.retention.age,
        keep_bytes: config.retention.bytes,
        transfers,
        logs,
        state_dir: config.state_dir.clone(),
    }
}

/// Waits until the station is told to end. Nothing ends before that; what does has failed, and the
/// service manager restarts us.
async fn until_told(
    stop: &Stop,
    looping: &mut JoinHandle<Result<(), Cut>>,
    feeders: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    tokio::select! {
        // What ends because it was told to is not looked at.
        biased;
        () = stop.draining() => Ok(()),
        ended = looping => Err(ServeError::Ended { part: "loop", why: why(ended) }),
        Some(ended) = feeders.join_next() => Err(ServeError::Ended {
            part: "inbox, writer, logs or API",
            why: why(ended.map(Ok::<_, Cut>)),
        }),
    }
}

/// Waits for the parts to drain, but neither for ever nor against a second signal.
async fn end(drained: impl Future<Output = ()>, stop: &Stop) {
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = drained => tracing::info!("drained"),
        () = stop.now() => tracing::warn!("ended on the spot, as asked"),
        () = tokio::time::sleep(GRACE) => tracing::warn!("ended without waiting longer"),
    }
}

/// Says how a part ended that should not have.
fn why(ended: Result<Result<(), Cut>, JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "it stopped by itself".to_owned(),
        Ok(Err(cut)) => format!("it could not {cut}"),
        Err(error) => error.to_string(),
    }
}

fn inbox_config(config: &Config) -> InboxConfig {
    InboxConfig {
        dir: config.inbox_dir(),
        timing: InboxTiming {
            rescan: config.inbox.rescan,
            settle: config.inbox.settle,
            give_up: config.inbox.give_up,
        },
        retention: Retention {
            age: config.retention.age,
            bytes: config.retention.bytes,
        },
    }
}

/// The one line that says everything listens.
fn ready_line(config: &Config) -> String {
    let http = config
        .http
        .map(|address| format!(", http://{address}"))
        .unwrap_or_default();
    format!(
        "station {} is ready: inbox {}, socket {}{http}, broker {}",
        config.name,
        config.inbox_dir().display(),
        config.socket().display(),
        config.nats_shown()
    )
}
