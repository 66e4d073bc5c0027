//! What nodes log goes on to a syslog receiver that comes and goes, and into plain files, with a station that is killed.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::Engine as _;
use steward_protocol::{
    logs::{Gap, Reason},
    syslog::framing::{Framer, Frames, Limits},
};
use tokio::runtime::Runtime;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{
    logs::{COUNT, Ship, Spool, numbered, text},
    support::{World, eventually, ports::free_port},
};

/// A syslog receiver that counts octets; it can be told to drop its connection after so many bytes.
struct Receiver {
    port: u16,
    /// Messages of each connection.
    heard: Arc<Mutex<Vec<Vec<String>>>>,
    /// Bytes until the connection is dropped; none if it is kept.
    until: Arc<AtomicU64>,
    away: Arc<AtomicBool>,
}

const NEVER: u64 = u64::MAX;

impl Receiver {
    fn new() -> Self {
        Self::with(hear)
    }

    fn with(
        hear: impl Fn(TcpStream, &Mutex<Vec<Vec<String>>>, &AtomicU64) + Send + 'static,
    ) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let receiver = Self {
            port,
            heard: Arc::default(),
            until: Arc::new(AtomicU64::new(NEVER)),
            away: Arc::new(AtomicBool::new(false)),
        };
        let (heard, until) = (Arc::clone(&receiver.heard), Arc::clone(&receiver.until));
        let away = Arc::clone(&receiver.away);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                if !away.load(Ordering::Relaxed) {
                    heard.lock().expect("no panic").push(Vec::new());
                    hear(stream, &heard, &until);
                }
            }
        });
        receiver
    }

    fn all(&self) -> Vec<Vec<String>> {
        self.heard.lock().expect("no panic").clone()
    }

    fn count(&self) -> usize {
        self.all().iter().map(Vec::len).sum()
    }
}

fn hear(mut stream: impl Read, heard: &Mutex<Vec<Vec<String>>>, until: &AtomicU64) {
    let (mut framer, mut frames) = (Framer::new(Limits::default()), Frames::default());
    let mut buffer = vec![0; 16 * 1024];
    let mut read = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        framer.push(&buffer[..count], &mut frames);
        let mut heard = heard.lock().expect("no panic");
        let here = heard.last_mut().expect("a connection");
        for (frame, bytes) in frames.iter() {
            assert!(frame.is_counted() && !frame.is_out_of_step());
            here.push(String::from_utf8_lossy(bytes).into_owned());
        }
        drop(heard);
        frames.clear();
        read += count as u64;
        if read >= until.swap(NEVER, Ordering::Relaxed) {
            // With bytes unread in its buffer: they are lost, as when a receiver is killed.
            return;
        }
        until.fetch_min(NEVER, Ordering::Relaxed);
    }
}

fn config(world: &World, text: &str) -> String {
    let path = world.folder.path().join("station.toml");
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// What a relayed message says, without its header.
fn said(message: &str) -> &str {
    let (_, rest) = message.split_once("domain=\"nginx\"").expect("our data");
    rest.split_once("] ").expect("an end of the data").1
}

#[test]
fn logs_are_relayed_and_mirrored_whatever_is_killed() {
    let world = World::new();
    let receiver = Receiver::new();
    let mirror = world.folder.path().join("mirror");
    let config = config(
        &world,
        &format!(
            "[logs.mirror]\ndir = {mirror:?}\nformat = \"raw\"\n[[logs.relay]]\nname = \"soc\"\naddress = \"tcp://127.0.0.1:{}\"\ndomain = \"nginx\"\n",
            receiver.port
        ),
    );
    let more = ["--config", config.as_str()];
    let mut station = Some(world.station_with(&more));
    let total: u64 = 300;
    let mut spool = Spool::new("nginx");
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        for number in 0..total {
            if number % 60 == 30 {
                // The receiver dies in mid-stream, or the station does.
                receiver.until.store(1, Ordering::Relaxed);
            }
            if number % 60 == 40 {
                let until = || receiver.until.load(Ordering::Relaxed);
                eventually("the receiver to die", || (until() == NEVER).then_some(()));
            }
            if number % 100 == 70 {
                station.take().expect("running").kill();
                station = Some(world.station_with(&more));
                ship.come_aboard().await;
            }
            let batch = numbered(&mut spool, number * COUNT);
            ship.store("nginx", &batch, (number + 1) * COUNT).await;
        }
        let gap = Gap::new(None, Reason::SpoolFull);
        let gap = spool.packer.gap(&spool.stream, total * COUNT, 7, gap);
        let gap = gap.expect("packed").to_vec();
        ship.store("nginx", &gap, total * COUNT + 7).await;
    });
    let last = "ship1/nginx: 7 messages missing: spool full";
    eventually("the gap to be relayed", || {
        let all = receiver.all();
        (said(all.last()?.last()?) == last).then_some(())
    });
    // Every message, and within a connection in its order, each once.
    let place: BTreeMap<String, u64> = (0..total * COUNT)
        .map(|number| (short(&text(number)), number))
        .collect();
    let mut next = 0;
    let connections = receiver.all();
    assert!(connections.len() > 3, "{} connections", connections.len());
    for connection in &connections {
        let mut before: Option<u64> = None;
        for message in connection {
            let Some(number) = place.get(said(message)).copied() else {
                assert_eq!(said(message), last);
                assert_eq!(next, total * COUNT);
                continue;
            };
            assert!(
                before.is_none_or(|before| before + 1 == number),
                "{number} after {before:?}"
            );
            assert!(number <= next, "{next} to {number} are missing");
            next = next.max(number + 1);
            before = Some(number);
        }
    }
    assert_eq!(next, total * COUNT);
    // The mirror: once, although the station was killed.
    let file = mirror.join("ship1").join("nginx.log");
    let mut expected: String = (0..total * COUNT)
        .map(|number| text(number) + "\n")
        .collect();
    expected.push_str("-- 7 messages missing: spool full --\n");
    eventually("the mirror to be complete", || {
        let found = fs::read_to_string(&file).ok()?;
        (found == expected).then_some(())
    });
    // In good order nothing is sent again.
    let before = receiver.count();
    station.take().expect("running").terminate();
    let station = world.station_with(&more);
    eventually("the relay to be back", || {
        (receiver.all().len() > connections.len()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(receiver.count(), before);
    assert_eq!(fs::read_to_string(&file).expect("text"), expected);
    station.terminate();
}

/// The text of a message, as its receiver reads it.
fn short(message: &str) -> String {
    let (_, text) = message.split_once("app[7]: ").expect("a tag");
    text.to_owned()
}

#[test]
fn logs_are_stored_and_told_of_while_a_receiver_is_away() {
    let world = World::new();
    let receiver = Receiver::new();
    receiver.away.store(true, Ordering::Relaxed);
    let config = config(
        &world,
        &format!(
            "[logs.mirror]\ndir = \"/proc/nowhere\"\n[[logs.relay]]\nname = \"soc\"\naddress = \"tcp://127.0.0.1:{}\"\npriority = \"err\"\n",
            receiver.port
        ),
    );
    let station = world.station_with(&["--config", config.as_str()]);
    let mut spool = Spool::new("nginx");
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        for number in 0..5 {
            let lines = [(1, 3, "<11>grave"), (2, 6, "<14>not")];
            let batch = spool.batch(number * 2, &lines);
            ship.store("nginx", &batch, (number + 1) * 2).await;
        }
    });
    eventually("both to be told of", || {
        let events = world.json(&["events", "-o", "json"]).to_string();
        (events.contains("soc: failed to") && events.contains("mirror: failed to")).then_some(())
    });
    receiver.away.store(false, Ordering::Relaxed);
    eventually("what is grave to be relayed", || {
        let all = receiver.all();
        let last = all.last()?;
        (last.len() == 5 && last.iter().all(|message| said(message) == "grave")).then_some(())
    });
    station.terminate();
}

#[test]
fn logs_are_relayed_secretly_to_a_receiver_that_is_trusted_and_to_no_other() {
    let world = World::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a key");
    let server = Arc::new(server);
    let receiver = Receiver::with(move |stream, heard, until| {
        let connection = ServerConnection::new(Arc::clone(&server)).expect("a connection");
        hear(StreamOwned::new(connection, stream), heard, until);
    });
    let ca = world.folder.path().join("ca.pem");
    let other =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(&ca, pem(other.cert.der())).expect("written");
    let config = config(
        &world,
        &format!(
            "[[logs.relay]]\nname = \"soc\"\naddress = \"tls://localhost:{}\"\nca = {ca:?}\n",
            receiver.port
        ),
    );
    let more = ["--config", config.as_str()];
    let station = world.station_with(&more);
    let mut spool = Spool::new("nginx");
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        ship.store("nginx", &numbered(&mut spool, 0), COUNT).await;
    });
    eventually("the certificate to be refused", || {
        let events = world.json(&["events", "-o", "json"]).to_string();
        events.contains("invalid peer certificate").then_some(())
    });
    assert_eq!(receiver.count(), 0);
    // Whom to trust is read again with every attempt.
    fs::write(&ca, pem(made.cert.der())).expect("written");
    eventually("all to be relayed", || {
        (receiver.count() as u64 == COUNT).then_some(())
    });
    station.terminate();
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
