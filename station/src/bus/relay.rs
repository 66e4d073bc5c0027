//! A relay between the client library and the broker, inside this program.
//!
//! The library drops its connection over a message that any publisher can send: one whose reply
//! subject or header is not text (`tests/poison.rs` holds which). So it never sees one. It connects
//! to a port of the loopback interface; behind it this relay speaks to the broker, hands every
//! message to the [`Ears`], and passes everything else on. Connecting, proving who we are,
//! subscribing, publishing and watching the connection remain the library's.
//!
//! ```text
//! library ── CONNECT, SUB, PUB, PING ──▶ relay ──▶ broker
//!    ▲                                     │
//!    └───────── INFO, PONG, -ERR ──────────┴── MSG, HMSG ──▶ ears ──▶ the station's loop
//! ```

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};

use super::{
    dial::{DialError, Dialled, Target, dial, line_of, read_line},
    ears::Ears,
    wire::{NotNats, Splitter},
};
use crate::station::chain;

/// Bytes read at once, in either direction.
const CHUNK: usize = 64 * 1024;

/// Bytes the kernel keeps between the library and this relay. Few: they are on their way already
/// when the connection breaks, and lost then.
const LOCAL_BUFFER: u32 = 256 * 1024;

/// Connections at once: the library's one, its next before its last is gone, and anybody's who
/// knocks at the port and cannot say the word.
const CONNECTIONS: usize = 8;

/// How long whoever connects may take to say the word.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// Why a connection through the relay ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    NotNats(#[from] NotNats),
    #[error("carry bytes to the broker and back")]
    Io(#[from] io::Error),
    #[error("trust what connected to the relay: it is not this station's client")]
    Stranger,
}

/// The relay to one broker of the configuration.
pub(super) struct Relay {
    listener: TcpListener,
    home: Target,
    /// Says to the relay that it is our own client that connects; the broker never sees it.
    word: String,
    /// Who the broker is told we are.
    name: String,
    ears: Arc<Ears>,
    /// The other servers of the cluster, as it named them last.
    others: Mutex<Vec<Target>>,
    /// Attempts in a row that failed; each goes to the next server.
    failed: AtomicUsize,
    /// Why the broker cannot be reached, for people.
    trouble: Arc<watch::Sender<Option<String>>>,
    /// Connections of our own client.
    open: watch::Sender<usize>,
    places: Arc<Semaphore>,
}

/// What a relay is made of.
pub(super) struct RelayParts {
    pub(super) home: Target,
    pub(super) word: String,
    pub(super) name: String,
    pub(super) ears: Arc<Ears>,
    pub(super) trouble: Arc<watch::Sender<Option<String>>>,
}

/// The library's view of a relay.
pub(super) struct Gate {
    /// Where the library is to connect.
    pub(super) address: SocketAddr,
    /// How many connections it has, this side of the broker.
    pub(super) open: watch::Receiver<usize>,
}

impl Relay {
    /// Opens the relay's port and serves it for ever.
    pub(super) fn start(parts: RelayParts) -> io::Result<Gate> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(LOCAL_BUFFER)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let backlog = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let listener = socket.listen(backlog)?;
        let address = listener.local_addr()?;
        let (open, opened) = watch::channel(0);
        let relay = Self {
            listener,
            home: parts.home,
            word: parts.word,
            name: parts.name,
            ears: parts.ears,
            others: Mutex::default(),
            failed: AtomicUsize::new(0),
            trouble: parts.trouble,
            open,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        };
        tokio::spawn(Arc::new(relay).listen());
        Ok(Gate {
            address,
            open: opened,
        })
    }

    async fn listen(self: Arc<Self>) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            let local = match self.listener.accept().await {
                Ok((local, _)) => local,
                Err(error) => {
                    // Out of descriptors, most likely; the library tries again meanwhile.
                    tracing::warn!(%error, "the relay to the broker cannot accept its client");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let relay = Arc::clone(&self);
            tokio::spawn(async move {
                let ended = relay.carry(local).await;
                if let Err(error) = ended {
                    tracing::debug!(
                        error = chain(&error),
                        "a connection through the relay ended"
                    );
                }
                drop(place);
            });
        }
    }

    /// Carries one connection of the library to its end.
    async fn carry(&self, mut local: TcpStream) -> Result<(), Ended> {
        local.set_nodelay(true)?;
        let Dialled {
            stream,
            info,
            others,
        } = self.dial().await?;
        *self.others() = others;
        local.write_all(&info).await?;
        let connect = tokio::time::timeout(INTRODUCTION, read_line(&mut local)).await;
        let connect = connect.map_err(|_| Ended::Stranger)??;
        let connect = self.introduce(&connect).ok_or(Ended::Stranger)?;

        let (from_broker, mut to_broker) = tokio::io::split(stream);
        to_broker.write_all(&connect).await?;
        to_broker.flush().await?;
        let (from_client, to_client) = local.into_split();
        self.open.send_modify(|open| *open += 1);
        let ended = tokio::select! {
            ended = self.hear(from_broker, to_client) => ended,
            ended = pass_on(from_client, to_broker) => ended.map_err(Ended::Io),
        };
        self.open.send_modify(|open| *open -= 1);
        ended
    }

    /// Dials the server whose turn it is: the configured one, and while it fails the others.
    async fn dial(&self) -> Result<Dialled, DialError> {
        let failed = self.failed.load(Ordering::Relaxed);
        let target = {
            let others = self.others();
            match failed % (others.len() + 1) {
                0 => self.home.clone(),
                turn => others[turn - 1].clone(),
            }
        };
        let dialled = dial(&target).await;
        let (failed, trouble) = match &dialled {
            Ok(_) => (0, None),
            Err(error) => (failed + 1, Some(chain(error))),
        };
        self.failed.store(failed, Ordering::Relaxed);
        self.trouble.send_replace(trouble);
        dialled
    }

    /// Returns the client's introduction as it is to be passed on; nothing if it is not our client.
    fn introduce(&self, line: &[u8]) -> Option<Vec<u8>> {
        let json = line.strip_prefix(b"CONNECT ")?;
        let mut fields: Map<String, Value> = serde_json::from_slice(json).ok()?;
        if fields.get("name")?.as_str()? != self.word {
            return None;
        }
        fields.insert("name".to_owned(), self.name.clone().into());
        Some(line_of("CONNECT", &fields))
    }

    /// Takes the messages out of what the broker says, and passes on the rest.
    async fn hear(
        &self,
        mut broker: impl AsyncRead + Unpin,
        mut client: impl AsyncWrite + Unpin,
    ) -> Result<(), Ended> {
        let mut splitter = Splitter::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = broker.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            splitter.feed(&chunk[..read]);
            let mut pieces = Vec::new();
            while let Some(piece) = splitter.next()? {
                pieces.push(piece);
            }
            let others = self.ears.listen(pieces);
            if !others.is_empty() {
                client.write_all(&others).await?;
            }
        }
    }

    fn others(&self) -> MutexGuard<'_, Vec<Target>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries what the client says to the broker, to its last byte.
async fn pass_on(
    mut client: impl AsyncRead + Unpin,
    mut broker: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = client.read(&mut chunk).await?;
        if read == 0 {
            return broker.shutdown().await;
        }
        broker.write_all(&chunk[..read]).await?;
        broker.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use steward_protocol::SubjectFilter;

    use super::*;
    use crate::bus::ears::{Hearing, ReplyTo};

    const WORD: &str = "open sesame";

    /// A relay whose broker is ours to play.
    async fn relay() -> (TcpListener, Gate, Hearing) {
        let broker = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let place = broker.local_addr().expect("bound");
        let filter: SubjectFilter = "central.>".parse().expect("a filter");
        let ears = Arc::new(Ears::new(filter, ReplyTo::new()));
        let (trouble, _) = watch::channel(None);
        let parts = RelayParts {
            home: Target::parse(&place.to_string()).expect("an address"),
            word: WORD.to_owned(),
            name: "steward station central".to_owned(),
            ears: Arc::clone(&ears),
            trouble: Arc::new(trouble),
        };
        let gate = Relay::start(parts).expect("a relay");
        let (changes, changed) = tokio::sync::mpsc::channel(1);
        // Kept open for as long as the test goes on.
        tokio::spawn(async move { changes.closed().await });
        (broker, gate, Hearing::new(ears, changed))
    }

    /// Plays both ends up to the client's introduction.
    async fn meet(broker: &TcpListener, gate: &Gate, name: &str) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(gate.address).await.expect("connects");
        let (mut server, _) = broker.accept().await.expect("the relay dials");
        let info: &[u8] = b"INFO {\"tls_available\":true,\"connect_urls\":[\"10.0.0.1:4222\"],\"version\":\"2\"}\r\n";
        server.write_all(info).await.expect("written");
        let info = read_line(&mut client).await.expect("an introduction");
        assert_eq!(info, br#"INFO {"version":"2"}"#);
        let connect = format!("CONNECT {{\"name\":{name:?}}}\r\nSUB central.> 1\r\n");
        client.write_all(connect.as_bytes()).await.expect("written");
        (client, server)
    }

    #[tokio::test]
    async fn our_client_is_let_through_under_its_real_name() {
        let (broker, gate, mut hearing) = relay().await;
        let (mut client, mut server) = meet(&broker, &gate, WORD).await;
        let connect = read_line(&mut server).await.expect("a line");
        assert_eq!(connect, br#"CONNECT {"name":"steward station central"}"#);
        let subscribe = read_line(&mut server).await.expect("a line");
        assert_eq!(subscribe, b"SUB central.> 1");
        let said = b"MSG central.a 1 \xff 0\r\n\r\nMSG central.b 1 2\r\nhi\r\nPING\r\n";
        server.write_all(said).await.expect("written");
        assert_eq!(read_line(&mut client).await.expect("a line"), b"PING");
        let mut heard = Vec::new();
        assert!(hearing.take(&mut heard, 9).await);
        let heard = format!("{heard:?}");
        assert!(
            heard.contains("poison_reply") && heard.contains("central.b"),
            "{heard}"
        );
        // What the client said last arrives before the end does.
        client.write_all(b"PONG\r\n").await.expect("written");
        drop(client);
        assert_eq!(read_line(&mut server).await.expect("a line"), b"PONG");
        assert_eq!(server.read(&mut [0]).await.expect("an end"), 0);
        let mut open = gate.open;
        open.wait_for(|open| *open == 0)
            .await
            .expect("the relay goes on");
    }

    #[tokio::test]
    async fn whoever_cannot_say_the_word_reaches_neither_broker_nor_station() {
        let (broker, gate, mut hearing) = relay().await;
        let (mut client, mut server) = meet(&broker, &gate, "steward station central").await;
        assert_eq!(
            server.read(&mut [0]).await.expect("an end"),
            0,
            "nothing got through"
        );
        // Closed, or reset because what followed was never read.
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(hearing.rest().is_empty());
    }

    #[tokio::test]
    async fn the_rest_of_the_cluster_is_tried_when_its_first_server_is_gone() {
        let (broker, gate, _hearing) = relay().await;
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let place = other.local_addr().expect("bound");
        let mut client = TcpStream::connect(gate.address).await.expect("connects");
        let (mut server, _) = broker.accept().await.expect("the relay dials");
        let info = format!("INFO {{\"connect_urls\":[\"{place}\"]}}\r\n");
        server.write_all(info.as_bytes()).await.expect("written");
        read_line(&mut client).await.expect("an introduction");
        drop((broker, server, client));
        // The first attempt fails, the next goes to the other.
        let tried = async {
            loop {
                let mut client = TcpStream::connect(gate.address).await.expect("connects");
                drop(client.read_u8().await);
            }
        };
        tokio::select! {
            dialled = other.accept() => drop(dialled.expect("the relay dials")),
            () = tried => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the other was never dialled"),
        }
    }
}
