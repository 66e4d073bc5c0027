//! The proxy: carries frames between clients and the broker, and does to them what the dose says.
//!
//! It knows where frames begin and end and nothing of what they mean.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    super::{dice::Dice, figures::Figures},
    dose::{Dose, Fault},
    frame::{Cutter, Frame, Kind},
};

/// Old frames kept for replaying, of each direction.
const OLD: usize = 512;

/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Stands for "never" where a time is needed.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    dose: Dose,
    dice: Dice,
    /// Whether faults are over.
    calm: AtomicBool,
    connections: AtomicU64,
    figures: Mutex<Figures>,
    up: Mutex<VecDeque<Vec<u8>>>,
    down: Mutex<VecDeque<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback. Must be called inside a runtime.
    pub(crate) fn start(broker: SocketAddr, dose: Dose, dice: Dice) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            broker,
            dose,
            dice,
            calm: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            figures: Mutex::default(),
            up: Mutex::default(),
            down: Mutex::default(),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            listening,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes no more faults, or begins to make them again.
    pub(crate) fn calm(&self, calm: bool) {
        self.shared.calm.store(calm, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> Figures {
        locked(&self.shared.figures).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(serve(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let Ok(broker) = TcpStream::connect(shared.broker).await else {
        return;
    };
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    locked(&shared.figures).add("carried", "connections", 1);
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let pump = |from, to, old: fn(&Shared) -> &Mutex<VecDeque<Vec<u8>>>, part| Pump {
        from,
        to,
        old,
        dice: shared.dice.fork(number * 2 + part),
        shared: Arc::clone(&shared),
        held: Vec::new(),
    };
    // When one direction ends, both do.
    tokio::select! {
        () = pump(from_client, to_broker, |shared| &shared.up, 0).run() => {}
        () = pump(from_broker, to_client, |shared| &shared.down, 1).run() => {}
    }
}

/// One direction of one connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    old: fn(&Shared) -> &Mutex<VecDeque<Vec<u8>>>,
    dice: Dice,
    shared: Arc<Shared>,
    /// Frames held back, and until when.
    held: Vec<(Instant, Vec<u8>)>,
}

impl Pump {
    /// Carries until the connection ends, or is ended.
    async fn run(mut self) {
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; READ];
        loop {
            let due = self.held.iter().map(|(due, _)| *due).min();
            let until = due.unwrap_or_else(|| Instant::now() + NEVER);
            let read = match timeout_at(until, self.from.read(&mut buffer)).await {
                Err(_) => {
                    if self.release().await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Ok(read)) if read > 0 => read,
                Ok(_) => return,
            };
            cutter.push(&buffer[..read]);
            loop {
                match cutter.next() {
                    Ok(Some(frame)) => {
                        if self.carry(frame).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let text = error.to_string();
                        locked(&self.shared.figures).add("not understood", &text, 1);
                        return;
                    }
                }
            }
        }
    }

    /// Sends on what was held back long enough.
    async fn release(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let (due, held) = self.held.drain(..).partition(|(due, _)| *due <= now);
        self.held = held;
        let due: Vec<(Instant, Vec<u8>)> = due;
        for (_, bytes) in due {
            self.to.write_all(&bytes).await?;
        }
        Ok(())
    }

    async fn carry(&mut self, frame: Frame) -> io::Result<()> {
        if frame.kind != Kind::Message {
            return self.to.write_all(&frame.bytes).await;
        }
        let fault = self.draw(&frame);
        let Frame {
            mut bytes, payload, ..
        } = frame;
        match fault {
            None => self.to.write_all(&bytes).await?,
            Some(Fault::Drop) => {}
            Some(Fault::Duplicate) => {
                self.to.write_all(&bytes).await?;
                self.to.write_all(&bytes).await?;
            }
            Some(Fault::Hold(_, time)) => self.held.push((Instant::now() + time, bytes)),
            Some(Fault::Replay(back)) => {
                self.to.write_all(&bytes).await?;
                let old = locked((self.old)(&self.shared)).get(back).cloned();
                if let Some(old) = old {
                    self.to.write_all(&old).await?;
                }
            }
            Some(Fault::Flip(bit)) => {
                if let Some(byte) = bytes.get_mut(payload.start + bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                self.to.write_all(&bytes).await?;
            }
            Some(Fault::Cut(length)) => {
                self.to.write_all(&bytes[..length.min(bytes.len())]).await?;
                self.to.flush().await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Fault::Stall(time)) => {
                sleep_until(Instant::now() + time).await;
                self.to.write_all(&bytes).await?;
            }
        }
        if self.held.iter().any(|(due, _)| *due <= Instant::now()) {
            self.release().await?;
        }
        Ok(())
    }

    /// Draws what is done to a frame, counts it, and keeps a copy to be replayed.
    fn draw(&mut self, frame: &Frame) -> Option<Fault> {
        let mut old = locked((self.old)(&self.shared));
        let calm = self.shared.calm.load(Ordering::Relaxed);
        let dose = self.shared.dose;
        let payload = frame.payload.len();
        let fault = match calm {
            true => None,
            false => dose.draw(&mut self.dice, frame.bytes.len(), payload, old.len()),
        };
        if old.len() == OLD {
            old.pop_front();
        }
        old.push_back(frame.bytes.clone());
        drop(old);
        let mut figures = locked(&self.shared.figures);
        figures.add("carried", "frames", 1);
        if let Some(fault) = fault {
            figures.add("faults", fault.as_str(), 1);
        }
        fault
    }
}
