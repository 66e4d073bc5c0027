//! Logs on their way from the programs of a node to its station: the process that has inputs, spool and delivery.
//!
//! ```text
//! inputs ─ Portion ─▶ feed (rules) ─▶ the spool's thread ◀─ read, release ─ carry ─▶ bus
//!                                          └─ standings ─▶ carry ◀─ Mail::Kept ─ supervisor
//! ```
//!
//! Without an input in the config there is no such process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use steward_protocol::{Domain, Generation, Subject, retry::Backoff};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    feed::Feed,
    input::{InputError, Work},
    mark::Before,
    route::{Rules, Tell},
    spool::{
        Place, Settings, Spool, SpoolError,
        files::Files,
        writer::{Commit, Gone, Store},
    },
};
use crate::{
    bus::dice,
    config::{self, Logs, syslog::Listen},
    keeper::chain,
    signals::Stop,
    supervisor::{
        context::{Born, Context},
        kernel::{Fault, Verdict},
        process::{ProcessError, Quit},
        pulse,
    },
};

pub mod board;
mod carry;
pub mod feed;
pub mod input;
mod mark;
pub mod route;
pub mod send;
pub mod spool;

/// The directory in the state directory.
const DIR: &str = "logs";

/// The spool's directory in it.
const SPOOL: &str = "spool";

/// Wait before an input that does not work is tried again.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// How long the writer may take to commit at the end, and an earlier one to leave.
const LEAVE: Duration = Duration::from_secs(5);

/// Files that are open besides connections.
const OTHER_FILES: u64 = 512;

/// How often it is looked whether the disk takes logs again.
const LOOK: Duration = Duration::from_secs(1);

/// Why the process of logs cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// Its directory cannot be used.
    #[error("use the directory {} of logs", .dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(SpoolError),
    /// The system gives no thread.
    #[error("start the thread of the spool of logs")]
    Thread(#[source] io::Error),
    /// The spool's thread has ended by itself.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The spool's thread does not end.
    #[error("end the thread of the spool of logs: its disk hangs")]
    Hangs,
    /// An earlier writer does not leave.
    #[error("begin with logs: an earlier start of this process still writes")]
    Taken,
    /// A rule that was checked before is none.
    #[error("compile the rules of logs")]
    Rules(#[source] regex::Error),
}

/// Runs logs until the supervisor lets go of the mailbox, or the agent ends; then with everything committed.
///
/// # Errors
///
/// Fails when the spool cannot be used.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let Some(logs) = context.config.logs.clone() else {
        return Ok(Quit::Stopping);
    };
    let began = pulse::hold(Plant::begin(&context, &logs, &born.subject)).await;
    let mut plant = began.map_err(|error| ProcessError::Logs(Box::new(error)))?;
    let tended = plant.tend(&context, &mut born).await;
    let ended = pulse::hold(plant.end(&context)).await;
    match tended.and(ended) {
        Ok(()) => Ok(Quit::Stopping),
        Err(error) => Err(ProcessError::Logs(Box::new(error))),
    }
}

/// Everything at work for logs.
struct Plant {
    dir: PathBuf,
    /// Whether a crash can take something of an input.
    has_sockets: bool,
    inputs: JoinSet<()>,
    stop: CancellationToken,
    feeds: Vec<Feed>,
    store: Store,
    /// Where delivery begins, for each domain that has something from before.
    starts: Vec<(Domain, Place)>,
    /// What the spool has of each input beyond what that has noted.
    seen: Vec<input::seen::ForFirst>,
    /// Inputs that have to remember that first.
    noting: Vec<CancellationToken>,
    logs: Logs,
    /// Domains that inputs and rules have named since the start; their spools stay open.
    named: BTreeSet<Domain>,
}

impl Plant {
    async fn begin(
        context: &Arc<Context>,
        logs: &Logs,
        subject: &Subject,
    ) -> Result<Self, LogsError> {
        let board = &context.board;
        if !is_free(context).await {
            return Err(LogsError::Taken);
        }
        let dir = context.config.state_dir.join(DIR);
        let in_dir = |source| LogsError::Dir {
            dir: dir.clone(),
            source,
        };
        make(&dir).map_err(in_dir)?;
        let has_sockets = logs.inputs.iter().any(|input| input.listen.is_socket());
        let before = match has_sockets {
            true => mark::begin(&dir).map_err(in_dir)?,
            false => Before::Ended,
        };
        raise_descriptors(logs);
        let rules = Arc::new(Rules::new(&logs.rules).map_err(LogsError::Rules)?);
        let Opened {
            store,
            starts,
            seen,
        } = open(&dir, logs, context)?;
        let feed = |input: &config::syslog::Input| {
            let tally = board.tally(&input.name);
            Feed::new(
                input.domain.clone(),
                Arc::clone(&rules),
                store.clone(),
                tally,
            )
        };
        let mut plant = Self {
            feeds: logs.inputs.iter().map(feed).collect::<Result<_, _>>()?,
            dir,
            has_sockets,
            inputs: JoinSet::new(),
            stop: CancellationToken::new(),
            store,
            starts,
            seen,
            noting: Vec::new(),
            logs: logs.clone(),
            named: config::syslog::domains_named(&logs.inputs, &logs.rules),
        };
        plant.open(context, subject, before).await?;
        Ok(plant)
    }

    /// Opens the inputs. What a start that was cut off may have lost is said in front of everything else.
    async fn open(
        &mut self,
        context: &Arc<Context>,
        subject: &Subject,
        before: Before,
    ) -> Result<(), LogsError> {
        let mut seen = std::mem::take(&mut self.seen).into_iter();
        for (input, feed) in self.logs.inputs.iter().zip(&self.feeds) {
            if let Before::CutOff(since) = before
                && input.listen.is_socket()
            {
                let gap = input::cut_off(&input.name, since);
                // Also where nothing was durable yet: then all of it may be missing.
                feed.put_everywhere(&gap).await?;
            }
            let work = Work {
                input: input.clone(),
                feed: feed.clone(),
                stop: self.stop.clone(),
                dir: self.dir.clone(),
                seen: seen.next().unwrap_or_default(),
                noted: CancellationToken::new(),
            };
            if !work.seen.is_empty() {
                self.noting.push(work.noted.clone());
            }
            self.inputs
                .spawn(keep(Arc::clone(context), subject.clone(), work));
        }
        if self.has_sockets {
            let settling = settle(self.dir.clone(), self.feeds.clone(), self.stop.clone());
            self.inputs.spawn(settling);
        }
        Ok(())
    }

    /// Delivers, and looks after the inputs, until there is reason to end. The carrier is never dropped on its way, for
    /// what it was about to release would stay.
    async fn tend(&mut self, context: &Arc<Context>, born: &mut Born) -> Result<(), LogsError> {
        let mut stop = context.stop.clone();
        // What was read again before this start of the process is read again by it.
        let mut reload = context.reload.clone();
        let starts = std::mem::take(&mut self.starts);
        // What is delivered is removed, and cannot be recognised any more.
        let noted = timeout(input::seen::PATIENCE, all(std::mem::take(&mut self.noting)));
        tokio::select! {
            biased;
            () = ending(&mut stop) => return Ok(()),
            // What is not remembered by then may come twice if the agent is killed once more.
            noted = pulse::hold(noted) => drop(noted),
        }
        let mut carrier = carry::Carrier::new(context, self.store.clone(), starts, &self.logs);
        let mut carried = pin!(carrier.carry(&mut born.mailbox));
        let mut told = Told::default();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = ending(&mut stop) => return Ok(()),
                Some(ended) = self.inputs.join_next() => input_ended(ended),
                Ok(()) = reload.changed() => self.reload(context, &born.subject).await,
                _ = looks.tick() => {
                    if context.board.is_free() {
                        return Err(LogsError::Gone(Gone));
                    }
                    look(context, &born.subject, &mut told).await;
                }
                carried = &mut carried => return match carried {
                    carry::End::LetGo => Ok(()),
                    carry::End::WriterGone => Err(LogsError::Gone(Gone)),
                },
            }
        }
    }

    /// Reads the rules again; where they cannot be read, those there are stay.
    async fn reload(&mut self, context: &Context, subject: &Subject) {
        let Some(path) = context.config.file.clone() else {
            return tracing::warn!("there is no config file to read rules of logs from");
        };
        let read = tokio::fs::read_to_string(&path)
            .await
            .map_err(|error| error.to_string())
            .and_then(|text| {
                let rules = config::syslog::rules_of(&path, text, &self.named);
                rules.map_err(|error| chain(&error))
            })
            .and_then(|specs| {
                let rules = Rules::new(&specs).map_err(|error| error.to_string())?;
                Ok((rules, config::syslog::domains_named(&[], &specs)))
            });
        match read {
            Ok((rules, mut named)) => {
                self.named.append(&mut named);
                let rules = Arc::new(rules);
                for feed in &self.feeds {
                    // A writer that is gone is noticed elsewhere.
                    feed.reroute(Arc::clone(&rules)).ok();
                }
                tracing::info!(path = %path.display(), "the rules of logs were read again");
            }
            Err(problem) => {
                tracing::error!(path = %path.display(), problem, "the rules of logs stay as they are");
                let path = path.display();
                let detail = format!("the rules of logs stay as they are; {path}: {problem}");
                context.raise(subject, Fault::Config(detail)).await;
            }
        }
    }

    /// Closes the inputs, commits what they gave, and takes the mark away.
    async fn end(mut self, context: &Context) -> Result<(), LogsError> {
        self.stop.cancel();
        while let Some(ended) = self.inputs.join_next().await {
            input_ended(ended);
        }
        for feed in std::mem::take(&mut self.feeds) {
            feed.tell(Tell::All).ok();
        }
        self.store.stop()?;
        if !is_free(context).await {
            return Err(LogsError::Hangs);
        }
        // What is in memory only, be it a number, is lost now; the mark lets the next start say so.
        let owes = self.store.standings().borrow().iter().any(|one| one.owes);
        if owes {
            tracing::error!(
                "the disk did not take all that was logged; what is missing is told after the next start"
            );
        }
        if self.has_sockets && !owes {
            mark::end(&self.dir).map_err(|source| LogsError::Dir {
                dir: self.dir.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// What a spool that was opened gives.
struct Opened {
    store: Store,
    starts: Vec<(Domain, Place)>,
    seen: Vec<input::seen::ForFirst>,
}

/// Opens the spool and gives it to its thread.
fn open(dir: &Path, logs: &Logs, context: &Context) -> Result<Opened, LogsError> {
    let spool = dir.join(SPOOL);
    let disk = Files::open(&spool).map_err(|source| LogsError::Dir { dir: spool, source })?;
    let settings: Settings = logs.spool.clone();
    let draw = Box::new(|| Generation(Uuid::now_v7()));
    let mut spool = Spool::open(disk, settings, draw).map_err(LogsError::Spool)?;
    let starts = spool.starts();
    let starts = starts
        .map(|(domain, place)| (domain.clone(), place))
        .collect();
    let seen = input::seen::beyond_notes(dir, logs, &mut spool);
    let commit: Commit = logs.commit;
    let (store, thread) = Store::start(spool, commit).map_err(LogsError::Thread)?;
    context.board.sit(thread);
    Ok(Opened {
        store,
        starts,
        seen,
    })
}

/// Waits until nobody has the spool, and tells whether that came true.
async fn is_free(context: &Context) -> bool {
    let free = async {
        while !context.board.is_free() {
            sleep(LEAVE / 1000).await;
        }
    };
    timeout(LEAVE, free).await.is_ok()
}

/// Waits for all of these.
async fn all(tokens: Vec<CancellationToken>) {
    for token in tokens {
        token.cancelled().await;
    }
}

/// Returns when the agent ends; a sender that is gone means the same.
async fn ending(stop: &mut watch::Receiver<Stop>) {
    drop(stop.wait_for(|stop| *stop != Stop::No).await);
}

/// Lets the panic of an input be that of the process, which is judged and begins anew.
pub(crate) fn input_ended(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Keeps one input at work: what does not work is told once, and tried again.
async fn keep(context: Arc<Context>, subject: Subject, work: Work) {
    let mut attempt = 0;
    loop {
        let began = Instant::now();
        let error = match input::run(work.clone()).await {
            Ok(()) | Err(InputError::Gone(_)) => return,
            Err(error) => error,
        };
        if matches!(error, InputError::Receive { .. }) {
            // What the kernel had kept went with the socket.
            let gap = input::broken(&work.input.name);
            if work.feed.put_everywhere(&gap).await.is_err() {
                return;
            }
        }
        let error = chain(&error);
        if work.stop.is_cancelled() {
            return;
        }
        tracing::warn!(input = %work.input.name, error, "an input of logs does not work");
        let is_news = work.feed.tally().view().trouble.as_ref() != Some(&error);
        work.feed.tally().trouble(Some(error.clone()));
        if is_news && context.raise(&subject, Fault::NotStartable(error)).await != Verdict::Continue
        {
            return;
        }
        if began.elapsed() > RETRY.cap {
            // It worked for a while.
            attempt = 0;
        }
        let wait = RETRY.above(RETRY.base, attempt, dice());
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = work.stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Notes again and again until when all that was received is durable, so that a crash costs a short gap and not one since
/// the start.
async fn settle(dir: PathBuf, feeds: Vec<Feed>, stop: CancellationToken) {
    let rounds = async {
        loop {
            sleep(mark::INTERVAL).await;
            let at = SystemTime::now();
            for feed in &feeds {
                feed.settled().await?;
            }
            if let Err(error) = mark::settle(&dir, at) {
                tracing::debug!(%error, "the time of the mark of logs stays as it is");
            }
        }
        #[expect(unreachable_code, reason = "names the error of the loop")]
        Ok::<(), Gone>(())
    };
    tokio::select! {
        () = stop.cancelled() => {}
        // A writer that is gone is noticed elsewhere.
        _ = rounds => {}
    }
}

/// What was raised and is not over.
#[derive(Default)]
struct Told {
    /// Why the disk takes no logs.
    disk: Option<String>,
    /// Inputs that could take no connections, and when that was last so.
    untaken: BTreeMap<String, Instant>,
}

/// Raises inputs that can take no connections, once until that was long over.
async fn look_at_inputs(context: &Context, subject: &Subject, told: &mut Told) {
    let now = Instant::now();
    told.untaken
        .retain(|_, last| now.duration_since(*last) < RETRY.cap);
    for (name, trouble) in context.board.untaken() {
        if told.untaken.insert(name, now).is_none() {
            context.raise(subject, Fault::NotStartable(trouble)).await;
        }
    }
}

/// Raises a disk that takes no logs, once, and inputs that can take no connections.
async fn look(context: &Context, subject: &Subject, told: &mut Told) {
    look_at_inputs(context, subject, told).await;
    let trouble = &mut told.disk;
    let stuck = context.board.stuck();
    if stuck.is_some() && trouble.is_none() {
        let detail = stuck.clone().unwrap_or_default();
        context.raise(subject, Fault::Storage(detail)).await;
    } else if stuck.is_none() && trouble.is_some() {
        tracing::info!("the disk takes logs again");
    }
    *trouble = stuck;
}

/// Lets this program have as many files open as there may be connections, as far as the system allows. Commands inherit it.
fn raise_descriptors(logs: &Logs) {
    let open = |input: &config::syslog::Input| match input.listen {
        Listen::Files(_) => input::files::MAX_OPEN as u64,
        _ if input.listen.is_stream() => input.connections as u64,
        _ => 0,
    };
    let needed = logs.inputs.iter().map(open).sum::<u64>() + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let most = limit.maximum.map_or(needed, |most| most.min(needed));
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || most < needed {
        tracing::warn!(
            needed,
            most,
            "there may be more connections and files configured than may be open; LimitNOFILE of the agent's unit allows more"
        );
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => dir
            .parent()
            .map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all()),
    }
}

/// Tells for people what is listened to, for a config that is only checked.
pub fn described(logs: &Logs) -> Vec<String> {
    let line = |input: &config::syslog::Input| {
        let kind = match &input.listen {
            Listen::Udp(_) | Listen::Unixgram(_) => "datagrams",
            Listen::Tcp(_) | Listen::Unix(_) => "streams",
            Listen::Tls(..) => "encrypted streams",
            Listen::Journal(_) => "the entries",
            Listen::Files(files) => {
                let count = input::files::count(files);
                return format!(
                    "logs: lines of {} go to domain {}; {count} files now",
                    input.name, input.domain
                );
            }
        };
        let place = match &input.listen {
            Listen::Journal(_) => "of",
            _ => "on",
        };
        format!(
            "logs: {kind} {place} {} go to domain {}",
            input.name, input.domain
        )
    };
    logs.inputs.iter().map(line).collect()
}
