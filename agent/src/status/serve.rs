//! Answers whoever connects to the agent's socket, one after the other. Knows nothing of its readers.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::Method;
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixSocket, UnixStream},
    time::{sleep, timeout},
};

use super::{BrokerView, CommandsView, JournalView, StationView, StatusView, Usage, socket};
use crate::{
    bus::{Link, without_secrets},
    journal::spool,
    signals::Stop,
    supervisor::{context::Context, view::Listed},
};

/// Connections waiting for their turn; each takes milliseconds, and there are few who ask.
const WAITING: u32 = 8;

/// How long the journal may take, whose disk may hang.
const JOURNAL: Duration = Duration::from_secs(2);

/// How long a reader may take, who keeps the others waiting.
const READER: Duration = Duration::from_secs(2);

/// Pause after a connection could not be taken, as for want of descriptors.
const AGAIN: Duration = Duration::from_secs(1);

/// The agent's socket; its file goes with it.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens the socket in a state directory that no other agent uses. What an earlier one left is replaced.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be made, or something else stands in its place.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = socket(state_dir);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => {
                let problem = "something that is no socket stands in its place";
                return Err(io::Error::new(ErrorKind::AlreadyExists, problem));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = UnixSocket::new_stream()?;
        socket.bind(&path)?;
        // Nobody is let in before it listens.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let listener = socket.listen(WAITING)?;
        Ok(Self { listener, path })
    }

    /// Answers for ever.
    pub async fn serve(self, context: Arc<Context>) {
        let mut link = context.voice.bus.link();
        let mut since = Timestamp::now();
        loop {
            tokio::select! {
                changed = link.changed() => match changed {
                    Ok(()) => since = Timestamp::now(),
                    // The bus is gone only when the agent is.
                    Err(_) => return,
                },
                taken = self.listener.accept() => match taken {
                    Ok((reader, _)) => answer(&context, since, reader).await,
                    Err(error) => {
                        tracing::debug!(%error, "somebody who asks for the status was not let in");
                        sleep(AGAIN).await;
                    }
                },
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next start replaces it in any case.
        fs::remove_file(&self.path).ok();
    }
}

async fn answer(context: &Context, link_since: Timestamp, mut reader: UnixStream) {
    let status = status(context, link_since).await;
    let Ok(mut json) = serde_json::to_vec(&status) else {
        return;
    };
    json.push(b'\n');
    let said = async {
        reader.write_all(&json).await?;
        reader.shutdown().await
    };
    // Whoever does not read in time goes without.
    drop(timeout(READER, said).await);
}

async fn status(context: &Context, link_since: Timestamp) -> StatusView {
    let journal = journal(context).await;
    let config = &context.config;
    let processes = &context.introduction.processes;
    let processes = processes.borrow().iter().map(Listed::view).collect();
    let stopping = *context.stop.borrow() != Stop::No;
    StatusView {
        node: config.node.clone(),
        instance: context.voice.instance,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: context.introduction.started_at,
        at: Timestamp::now(),
        stopping,
        broker: broker(context, link_since),
        station: station(context),
        journal,
        commands: CommandsView {
            running: config
                .commands_at_once
                .saturating_sub(context.permits.available_permits()),
            at_once: config.commands_at_once,
        },
        methods: config.methods.offered().map(Method::name).collect(),
        counters: context.counters.all(),
        logs: context.board.view(),
        processes,
    }
}

fn broker(context: &Context, since: Timestamp) -> BrokerView {
    let (connected, refused) = match &*context.voice.bus.link().borrow() {
        Link::Up { .. } => (true, None),
        Link::Down => (false, None),
        Link::Refused(sentence) => (false, Some(sentence.clone())),
    };
    BrokerView {
        url: without_secrets(&context.config.nats),
        connected,
        since,
        refused,
    }
}

fn station(context: &Context) -> StationView {
    let footing = *context.footing.borrow();
    let welcomed = match &*context.voice.bus.link().borrow() {
        Link::Up { generation, .. } => {
            footing.welcomed.is_some() && footing.generation == *generation
        }
        Link::Down | Link::Refused(_) => false,
    };
    let last_hello = context.last_hello.borrow().map(|(at, _)| at);
    let round_trip = *context.round_trip.borrow();
    StationView {
        name: context.config.station.clone(),
        welcomed,
        ledger_id: footing.welcomed.map(|(ledger_id, _)| ledger_id),
        epoch: footing.welcomed.map(|(_, epoch)| epoch),
        last_hello,
        round_trip_us: round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
    }
}

async fn journal(context: &Context) -> Option<JournalView> {
    let snapshot = timeout(JOURNAL, context.keeper.snapshot()).await;
    let snapshot = snapshot.ok()?.ok()?;
    let config = &context.config;
    let usage = |used: usize, most: usize| Usage {
        used: used as u64,
        most: most as u64,
    };
    let held = snapshot.held;
    Some(JournalView {
        journal_id: context.voice.journal_id,
        starts: snapshot.counter,
        started: usage(held.started, config.commands_at_once),
        queue: usage(held.waiting, config.queue),
        unconfirmed: held.unconfirmed,
        events: usage(held.events, spool::MAX_EVENTS),
        results: Usage {
            used: held.output_bytes,
            most: config.results_budget,
        },
    })
}
