//! The station itself: whose it is, who may speak to it, and what it does about nonsense.

use super::*;

#[test]
fn what_belongs_to_the_station_is_closed_to_others() {
    let world = World::new();
    let _station = world.station();
    let mode =
        |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&world.state_dir()), 0o700);
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        assert_eq!(mode(&world.state_dir().join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_station_under_another_name_does_not_take_the_ledger() {
    let world = World::new();
    assert_eq!(code(world.station().terminate()), 0);
    let state_dir = world.state_dir().display().to_string();
    let serve = [
        "serve",
        "--state-dir",
        &state_dir,
        "--nats",
        &world.url,
        "--name",
        "central2",
    ];
    let output = world.steward(&serve);
    assert_eq!(code(output.status), 1, "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--name central"),
        "{output:?}"
    );
}

#[test]
fn the_same_id_is_recognised_and_another_content_refused() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = world.folder.path().join("truth");
    let submit = |text: &str| {
        let path = world.folder.path().join("same.json");
        fs::write(&path, text).expect("written");
        let file = fs::File::open(&path).expect("readable");
        world.steward_with(&["submit", "-", "--wait", "-o", "json"], Stdio::from(file))
    };
    let id = "01934d6a-7b00-7000-8000-000000000001";
    let with_id = |text: String| text.replacen("[{", &format!("[{{\"id\":\"{id}\","), 1);
    let first = with_id(appending("same", &["ship1"], &truth, "true"));
    let second = with_id(appending("same", &["ship1"], &truth, "false"));
    assert_eq!(code(submit(&first).status), 0);
    assert_eq!(code(submit(&first).status), 0);
    let refused = submit(&second);
    assert_eq!(code(refused.status), 5);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("another content"),
        "{refused:?}"
    );
    assert_eq!(world.lines_of(&truth).len(), 1);
}

#[test]
fn the_socket_is_the_owners_alone_and_the_port_only_reads() {
    let world = World::new();
    let port = crate::support::ports::free_port();
    let address = format!("127.0.0.1:{port}");
    let _station = world.station_with(&["--http", &address]);
    let mode = fs::metadata(world.state_dir().join("steward.sock"))
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for (request, expected) in [
        (
            format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n"),
            "200",
        ),
        (
            format!("GET /api/v1/nodes HTTP/1.1\r\nHost: localhost:{port}\r\n"),
            "200",
        ),
        (
            format!("POST /api/v1/messages HTTP/1.1\r\nHost: {address}\r\nContent-Length: 2\r\n"),
            "405",
        ),
        (
            "GET /api/v1/nodes HTTP/1.1\r\nHost: evil.example\r\n".to_owned(),
            "421",
        ),
        (
            format!("GET /nothing HTTP/1.1\r\nHost: {address}\r\n"),
            "404",
        ),
    ] {
        let answer = ask(&address, &request);
        assert_eq!(
            answer.split(' ').nth(1),
            Some(expected),
            "{request}: {answer}"
        );
    }
}

fn ask(address: &str, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("connects");
    let body = if request.starts_with("POST") {
        "[]"
    } else {
        ""
    };
    write!(stream, "{request}Connection: close\r\n\r\n{body}").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn garbage_on_the_stations_subjects_is_counted_and_disturbs_nobody() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(&world.url).await.expect("connects");
        for (subject, payload) in [
            ("central.event.ack.operatingsystem.ship1", &b"not json"[..]),
            (
                "central.event.ack.operatingsystem.ship1",
                b"{\"send\":{\"v\":99},\"ack\":{}}",
            ),
            ("central.event.hello.node.ship1", b"\xff\xfe"),
            ("central.event.nonsense.node.ship1", b"{}"),
            ("central.command.shellcommand.operatingsystem", b"{}"),
            ("central.too.short", b""),
        ] {
            client
                .publish(subject, payload.into())
                .await
                .expect("published");
        }
        client.flush().await.expect("flushed");
    });
    let counters = eventually("the garbage to be counted", || {
        let counters = world.json(&["status", "-o", "json"])["counters"].clone();
        (counters["garbage_subject"] == 2).then_some(counters)
    });
    assert_eq!(
        (
            &counters["garbage_ack"],
            &counters["garbage_hello"],
            &counters["garbage_method"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(
        code(
            world
                .steward(&["run", "--to", "ship1", "--", "true"])
                .status
        ),
        0
    );
}

#[test]
fn a_station_waits_for_its_broker_and_says_so() {
    let mut world = World::new();
    let port: u16 = world
        .url
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    drop(world.broker.take());
    let station = world.station();
    let _agent = world.agent("ship1");
    let output = world.steward(&["status", "-o", "json"]);
    assert_eq!(code(output.status), 1, "not ready");
    world.drop_file(
        "early.json",
        &appending(
            "early",
            &["ship1"],
            &world.folder.path().join("truth"),
            "true",
        ),
    );
    eventually("the message to be accepted without a broker", || {
        world.message_called("early")
    });
    let place = world.folder.path().join("broker-late");
    fs::create_dir(&place).expect("a folder");
    world.broker = Some(
        Broker::start_on(nats_server(), &place, port).unwrap_or_else(|error| panic!("{error}")),
    );
    assert_eq!(state_of(&world.await_final("early"), "ship1"), "succeeded");
    assert_eq!(code(station.terminate()), 0);
}

#[test]
fn a_second_station_in_the_same_directory_refuses_to_start() {
    let world = World::new();
    let _station = world.station();
    let state_dir = world.state_dir().display().to_string();
    let output = world.steward(&["serve", "--state-dir", &state_dir, "--nats", &world.url]);
    assert_eq!(code(output.status), 1, "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("another station"),
        "{output:?}"
    );
}
