//! Transfers over a link that is cut again and again.

use super::*;

/// A TCP relay to the broker whose connections can be cut.
struct Relay {
    url: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(broker: &str) -> Self {
        let target = broker.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let known = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let mut known = known.lock().expect("nobody panics with it");
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let mut from = from.try_clone().expect("cloned");
                    let mut to = to.try_clone().expect("cloned");
                    known.push(from.try_clone().expect("cloned"));
                    std::thread::spawn(move || {
                        // A cut connection ends it.
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        });
        Self { url, open }
    }

    fn cut(&self) {
        for stream in self.open.lock().expect("nobody panics with it").drain(..) {
            // It may have ended by itself.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Starts an agent behind a relay.
fn agent_behind(world: &World, relay: &Relay) -> Running {
    let mut command = std::process::Command::new(agent_program());
    command
        .args([
            "run",
            "--node",
            "ship1",
            "--nats",
            &relay.url,
            "--heartbeat",
            "1s",
        ])
        .arg("--state-dir")
        .arg(world.folder.path().join("ship1"))
        .env("RUST_LOG", "error");
    Running::start(command).0
}

#[test]
fn fifty_megabytes_of_output_arrive_as_they_were_written_although_the_link_is_cut_twenty_times() {
    let world = World::new();
    let relay = Relay::to(&world.url);
    let _station = world.station();
    let _agent = agent_behind(&world, &relay);
    world.await_online(&["ship1"]);
    let (stdout, stderr) = (noise(40 << 20, 1), noise(10 << 20, 2));
    let (first, second) = (
        world.folder.path().join("out"),
        world.folder.path().join("err"),
    );
    fs::write(&first, &stdout).expect("written");
    fs::write(&second, &stderr).expect("written");
    let script = format!(
        "cat '{}' & cat '{}' >&2; wait",
        first.display(),
        second.display()
    );
    submit(
        &world,
        "big",
        &json!({ "to": ["ship1"], "method": "shellcommand",
        "data": ["sh", "-c", script], "stream": true }),
    );
    let id = eventually("the message", || world.message_called("big"));
    let log = world
        .state_dir()
        .join("outputs")
        .join(&id)
        .join("ship1/bytes");
    for cut in 1..=20 {
        await_size("the output", &log, cut * (50 << 20) / 21);
        relay.cut();
    }
    let output = world.steward(&["msg", "output", &id, "--follow"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr[..200])
    );
    assert!(
        output.stdout == stdout,
        "{} bytes of stdout",
        output.stdout.len()
    );
    assert!(
        output.stderr == stderr,
        "{} bytes of stderr",
        output.stderr.len()
    );
    let message = world.await_final("big");
    assert_eq!(state_of(&message, "ship1"), "succeeded");
}

#[test]
fn a_large_file_is_fetched_although_the_link_is_cut_and_the_agent_and_the_station_are_killed() {
    let world = World::new();
    let relay = Relay::to(&world.url);
    let station = world.station();
    let agent = agent_behind(&world, &relay);
    world.await_online(&["ship1"]);
    let content = noise(100 << 20, 3);
    let path = world.folder.path().join("large");
    fs::write(&path, &content).expect("written");
    fetch(&world, "large", &path);
    let id = eventually("the message", || world.message_called("large"));
    let part = incoming(&world, &id);
    await_size("the file", &part, 20 << 20);
    relay.cut();
    await_size("the file", &part, 40 << 20);
    agent.kill();
    let before = size(&part);
    let _agent = agent_behind(&world, &relay);
    await_size("the file", &part, 60 << 20);
    assert!(size(&part) >= before, "it goes on where it was");
    station.kill();
    let _station = world.station();
    let message = world.await_final("large");
    assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
    assert!(fs::read(fetched(&world, "large")).expect("received") == content);
}

#[test]
fn a_large_file_is_sent_although_the_link_is_cut_and_the_agent_and_the_station_are_killed() {
    let world = World::new();
    let relay = Relay::to(&world.url);
    let station = world.station();
    let agent = agent_behind(&world, &relay);
    world.await_online(&["ship1"]);
    let content = noise(100 << 20, 4);
    fs::write(world.state_dir().join("files/large"), &content).expect("written");
    let target = world.folder.path().join("target");
    submit(
        &world,
        "large",
        &json!({ "to": ["ship1"], "method": "filesend", "source": "large",
        "path": target }),
    );
    let id = eventually("the message", || world.message_called("large"));
    let part = world.folder.path().join(format!(".steward-{id}.part"));
    await_size("the file", &part, 20 << 20);
    relay.cut();
    await_size("the file", &part, 40 << 20);
    agent.kill();
    let before = size(&part);
    let _agent = agent_behind(&world, &relay);
    await_size("the file", &part, before + (10 << 20));
    station.kill();
    let _station = world.station();
    let message = world.await_final("large");
    assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
    assert!(fs::read(&target).expect("received") == content);
    assert!(!part.exists(), "nothing half-received stays");
}
