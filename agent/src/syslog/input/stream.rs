//! Streams: TCP, TLS and sockets in the file system. Each connection has a framer, and reads only while there is room.
//!
//! Buffers belong to the input, not to its connections, so that thousands that are silent cost next to nothing. Pressure
//! goes back by not reading: the sender's own buffer fills, and it waits or spools.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use rustix::net::sockopt;
use steward_protocol::syslog::framing::{Framer, Frames, Limits};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream},
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};

use super::{
    InputError, LAST, LOOK, Work, gather,
    place::{self, Kind, Place},
    source,
    tls::{self, Secure},
    turned_away,
};
use crate::{
    config::syslog::TlsFiles,
    syslog::{board::add, route::Tell, spool::writer::Gone},
};

/// Connections waiting to be taken; more wait in the senders.
const BACKLOG: u32 = 1024;

/// Bytes of one read.
const READ: usize = 128 << 10;

/// Bytes of messages after which a portion is handed over although more is there.
const PORTION: usize = 96 << 10;

/// Reads before other connections have their turn, when nothing comes of them: a frame that never ends.
const TURN: usize = 16;

/// Connections that read at the same moment; the others wait for a buffer.
const DESKS: usize = 4;

/// How long a sender may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// When a peer that says nothing is first asked whether it is there; the kernel asks on by its own defaults.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Pause after a connection could not be taken, as for want of descriptors.
const AGAIN: Duration = Duration::from_millis(200);

/// How long saying that connections were turned away may wait for room: others are to be taken.
const SAYING: Duration = Duration::from_millis(100);

/// Looks without any reading after which buffers are given back.
const QUIET: u32 = 5;

/// Listens for streams over TCP.
pub(super) async fn tcp(work: Work, address: SocketAddr) -> Result<(), InputError> {
    let listener = listen(address).map_err(|error| work.listening(error))?;
    serve(work, Listener::Tcp(listener)).await
}

/// Listens for encrypted streams.
pub(super) async fn tls(
    work: Work,
    address: SocketAddr,
    files: TlsFiles,
) -> Result<(), InputError> {
    let acceptor = tls::acceptor(&work.input.name, &files)?;
    let listener = listen(address).map_err(|error| work.listening(error))?;
    serve(work, Listener::Tls(listener, acceptor)).await
}

/// Listens for streams over a socket in the file system.
pub(super) async fn unix(work: Work, path: PathBuf) -> Result<(), InputError> {
    let listen = || {
        place::clear(&path, Kind::Stream)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(&path)?;
        let place = Place::take(&path, work.input.mode)?;
        Ok((socket.listen(BACKLOG)?, place))
    };
    let (listener, place) = listen().map_err(|error: io::Error| work.listening(error))?;
    serve(work, Listener::Unix(listener, place)).await
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of an earlier start may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, tls::Acceptor),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "held for its drop")] Place,
    ),
}

/// A connection as it was taken.
enum Taken {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, tls::Acceptor),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Taken> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Taken::Tcp(stream, peer))
            }
            Self::Tls(listener, acceptor) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Taken::Tls(stream, peer, acceptor.clone()))
            }
            Self::Unix(listener, _) => Ok(Taken::Unix(listener.accept().await?.0)),
        }
    }
}

/// Takes connections until told to end, then lets those that are open say what they have said already.
async fn serve(work: Work, listener: Listener) -> Result<(), InputError> {
    work.feed.tally().trouble(None);
    let shared = Arc::new(Shared {
        name: source(&work.input.name, None),
        desks: Desks::default(),
        work,
    });
    let work = &shared.work;
    let mut connections: JoinSet<Result<(), Gone>> = JoinSet::new();
    let mut refusals = 0;
    // Tries that failed since the last look.
    let mut untaken = 0;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = work.stop.cancelled() => break,
            Some(ended) = connections.join_next() => shared.ended(ended)?,
            // Before connections: while none can be taken, there is always one to be tried.
            _ = looks.tick() => {
                if std::mem::take(&mut untaken) == 0 {
                    work.feed.tally().trouble(None);
                }
                shared.desks.look();
                shared.tell_refusals(&mut refusals).await?;
                work.feed.tell(Tell::Due)?;
            }
            taken = listener.accept() => match taken {
                Ok(_) if connections.len() >= work.input.connections => {
                    refusals += 1;
                    if work.feed.tally().turned_away.fetch_add(1, Ordering::Relaxed) == 0 {
                        tracing::warn!(input = %work.input.name, "there are as many connections as allowed; more are turned away");
                    }
                }
                Ok(taken) => {
                    add(&work.feed.tally().connections, 1);
                    connections.spawn(converse(Arc::clone(&shared), taken));
                }
                Err(error) => {
                    untaken += 1;
                    shared.not_taken(&error);
                    sleep(AGAIN).await;
                }
            },
        }
    }
    // Who was let in by the kernel already may have said something.
    while connections.len() < work.input.connections
        && let Some(Ok(taken)) = listener.accept().now_or_never()
    {
        add(&work.feed.tally().connections, 1);
        connections.spawn(converse(Arc::clone(&shared), taken));
    }
    drop(listener);
    shared.tell_refusals(&mut refusals).await?;
    while let Some(ended) = connections.join_next().await {
        shared.ended(ended)?;
    }
    Ok(())
}

/// What all connections of an input have in common.
struct Shared {
    work: Work,
    name: Arc<str>,
    desks: Desks,
}

impl Shared {
    /// Says that connections were turned away: their senders may have written to them before they noticed.
    async fn tell_refusals(&self, refusals: &mut u64) -> Result<(), Gone> {
        match std::mem::take(refusals) {
            0 => Ok(()),
            count => {
                let gap = turned_away(&self.work.input.name, count);
                self.work.feed.offer(gap, SAYING).await
            }
        }
    }

    /// Notes that a connection cannot be taken for the moment. It waits in the kernel, and nothing of it is lost.
    fn not_taken(&self, error: &io::Error) {
        let (tally, name) = (self.work.feed.tally(), &self.work.input.name);
        add(&tally.untaken, 1);
        let trouble = format!("take connections on {name}: {error}");
        if tally.view().trouble.as_ref() != Some(&trouble) {
            tracing::warn!(%error, input = %name, "connections cannot be taken; they wait");
            tally.trouble(Some(trouble));
        }
    }

    fn ended(&self, ended: Result<Result<(), Gone>, tokio::task::JoinError>) -> Result<(), Gone> {
        self.work
            .feed
            .tally()
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        match ended {
            Ok(ended) => ended,
            // A panic is the supervisor's business.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(()),
            },
        }
    }
}

/// Where connections read into.
#[derive(Default)]
struct Desk {
    buffer: Vec<u8>,
    frames: Frames,
}

/// As many as may read at once; made when needed, given back when it is quiet.
struct Desks {
    free: Mutex<(Vec<Desk>, u32)>,
    permits: Semaphore,
}

impl Default for Desks {
    fn default() -> Self {
        Self {
            free: Mutex::default(),
            permits: Semaphore::new(DESKS),
        }
    }
}

impl Desks {
    async fn take(&self) -> (Desk, Option<SemaphorePermit<'_>>) {
        // It is never closed.
        let permit = self.permits.acquire().await.ok();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.1 = 0;
        let mut desk = free.0.pop().unwrap_or_default();
        desk.buffer.resize(READ, 0);
        (desk, permit)
    }

    fn put(&self, desk: Desk) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.0.push(desk);
    }

    fn look(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.1 = free.1.saturating_add(1);
        if free.1 >= QUIET {
            free.0 = Vec::new();
        }
    }
}

/// A connection that can be read.
enum Connection {
    Tcp(TcpStream),
    Tls(Box<Secure>),
    Unix(UnixStream),
}

impl Connection {
    /// Waits until there is something to read. Safe to drop and call again.
    async fn ready(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Tls(stream) => stream.ready().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Reads what is there; fails with `WouldBlock` when that is nothing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }
}

/// What became of a connection after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Dry,
    Ended,
}

/// Reads one connection to its end.
async fn converse(shared: Arc<Shared>, taken: Taken) -> Result<(), Gone> {
    let work = &shared.work;
    let (connection, name) = match open(&shared, taken).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%error, input = %work.input.name, "a connection came to nothing");
            return Ok(());
        }
    };
    let mut reader = Reader {
        framer: Framer::new(Limits {
            keep: work.input.max_message,
            ..Limits::default()
        }),
        connection,
        name,
        shared: &shared,
    };
    loop {
        let ready = tokio::select! {
            biased;
            () = work.stop.cancelled() => return reader.finish().await,
            ready = timeout(work.input.idle, reader.connection.ready()) => ready,
        };
        if !matches!(ready, Ok(Ok(()))) {
            tracing::debug!(input = %work.input.name, "a connection that was silent for too long, or broken, is closed");
            return reader.end(Frames::default()).await;
        }
        if reader.take().await? == Flow::Ended {
            return Ok(());
        }
    }
}

async fn open(shared: &Shared, taken: Taken) -> io::Result<(Connection, Arc<str>)> {
    let name = |peer| source(&shared.work.input.name, Some(peer));
    match taken {
        Taken::Unix(stream) => Ok((Connection::Unix(stream), Arc::clone(&shared.name))),
        Taken::Tcp(stream, peer) => {
            keep_alive(&stream);
            Ok((Connection::Tcp(stream), name(peer)))
        }
        Taken::Tls(stream, peer, acceptor) => {
            keep_alive(&stream);
            let stream = timeout(HANDSHAKE, acceptor.accept(stream))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok((Connection::Tls(Box::new(stream)), name(peer)))
        }
    }
}

/// Lets the kernel find out when the peer is gone.
fn keep_alive(stream: &impl AsFd) {
    // Without it the idle timeout does.
    sockopt::set_socket_keepalive(stream, true).ok();
    sockopt::set_tcp_keepidle(stream, KEEPALIVE).ok();
}

struct Reader<'s> {
    connection: Connection,
    framer: Framer,
    name: Arc<str>,
    shared: &'s Shared,
}

impl Reader<'_> {
    /// Reads what is there, at most a portion's worth, and hands it over.
    async fn take(&mut self) -> Result<Flow, Gone> {
        let (mut desk, permit) = self.shared.desks.take().await;
        let flow = self.fill(&mut desk);
        let frames = std::mem::take(&mut desk.frames);
        self.shared.desks.put(desk);
        drop(permit);
        if flow == Flow::Ended {
            self.end(frames).await?;
        } else {
            self.hand(frames).await?;
        }
        Ok(flow)
    }

    fn fill(&mut self, desk: &mut Desk) -> Flow {
        for _ in 0..TURN {
            match self.connection.read(&mut desk.buffer) {
                Ok(0) => return Flow::Ended,
                Ok(count) => {
                    let room = count + self.framer.held();
                    desk.frames.arena.reserve(room);
                    self.framer.push(&desk.buffer[..count], &mut desk.frames);
                    if desk.frames.arena.len() >= PORTION {
                        return Flow::Open;
                    }
                    if count < desk.buffer.len() && !desk.frames.list.is_empty() {
                        // Most likely all there was; what is here is not to wait for more.
                        return Flow::Open;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flow::Dry,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flow::Ended,
            }
        }
        Flow::Open
    }

    async fn hand(&self, mut frames: Frames) -> Result<(), Gone> {
        if frames.list.is_empty() {
            return Ok(());
        }
        let work = &self.shared.work;
        let portion = gather::portion(&mut frames, &self.name, work.feed.tally());
        let count = portion.messages.len() as u64;
        let too_late = async {
            work.stop.cancelled().await;
            sleep(LAST).await;
        };
        tokio::select! {
            biased;
            put = work.feed.put(portion, None) => put,
            () = too_late => {
                // The spool is full and the agent ends: what was read already is lost, and counted.
                work.feed.lose(count);
                Ok(())
            }
        }
    }

    /// Ends the stream: what is open is a message, too.
    async fn end(&mut self, mut frames: Frames) -> Result<(), Gone> {
        self.framer.finish(&mut frames);
        self.hand(frames).await?;
        if let Connection::Tls(stream) = &mut self.connection {
            stream.close().await;
        }
        Ok(())
    }

    /// Reads what the sender has said already, and no more.
    async fn finish(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + LAST;
        while Instant::now() < deadline {
            let ready = timeout_at(deadline, self.connection.ready());
            tokio::select! {
                biased;
                ready = ready => if !matches!(ready, Ok(Ok(()))) {
                    break;
                },
                () = tokio::task::yield_now() => break,
            }
            match self.take().await? {
                Flow::Open => {}
                Flow::Dry => break,
                Flow::Ended => return Ok(()),
            }
        }
        self.end(Frames::default()).await
    }
}
