//! The same through TLS: the relay is at the end of it, so it sees the frames there as well.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use super::library::odd_frames;
use crate::support::{Running, World, eventually, nats_server};

/// A broker that takes connections with TLS, and from the attacker without.
struct TlsBroker {
    child: Child,
    port: u16,
}

impl TlsBroker {
    fn start(folder: &Path) -> Self {
        openssl(
            folder,
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        );
        openssl(
            folder,
            "req -newkey rsa:2048 -nodes -subj /CN=broker -keyout broker.key -out broker.csr",
        );
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
        openssl(
            folder,
            "x509 -req -days 2 -in broker.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -out broker.crt",
        );
        let config = folder.join("nats.conf");
        std::fs::write(
            &config,
            "listen: \"127.0.0.1:-1\"\nallow_non_tls: true\ntls { cert_file: broker.crt, key_file: broker.key }\n",
        )
        .expect("written");
        let child = Command::new(nats_server())
            .arg("-c")
            .arg(&config)
            .arg("--ports_file_dir")
            .arg(folder)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let file = folder.join(format!("nats-server_{}.ports", child.id()));
        let port = eventually("the broker to say where it listens", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
            ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
        });
        Self { child, port }
    }
}

impl Drop for TlsBroker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("this test needs openssl, which comes with ca-certificates");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn poison_behind_tls_is_contained_as_well() {
    let mut world = World::without_broker();
    let broker = TlsBroker::start(world.folder.path());
    let port = broker.port;
    let station = |url: &str, roots: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steward"));
        command
            .args(["serve", "--nats", url, "--state-dir"])
            .arg(world.state_dir())
            .env("SSL_CERT_FILE", roots)
            .env("RUST_LOG", "warn");
        Running::start(command).0
    };
    // Who trusts nobody in particular does not trust this broker.
    let stranger = world.folder.path().join("names");
    let untrusting = station(&format!("tls://127.0.0.1:{port}"), &stranger);
    eventually("the station to say that it trusts nobody", || {
        let status = world.json(&["status", "-o", "json"]);
        status["broker"]["reason"]
            .as_str()?
            .contains("certificate")
            .then_some(())
    });
    assert!(untrusting.terminate().success());

    let _station = station(
        &format!("tls://127.0.0.1:{port}"),
        &world.folder.path().join("ca.crt"),
    );
    world.url = format!("nats://127.0.0.1:{port}");
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let before = world.json(&["status", "-o", "json"]);
    assert_eq!(before["broker"]["connected"], true);
    let raw = super::raw::Raw::connect(&world.url);
    for odd in odd_frames() {
        raw.send(&odd.bytes());
    }
    let after = eventually("the poison to be counted", || {
        let status = world.json(&["status", "-o", "json"]);
        (status["counters"]["poison_size"].as_u64() >= Some(3)).then_some(status)
    });
    assert_eq!(
        before["broker"]["since"], after["broker"]["since"],
        "never disconnected"
    );
    let output = world.steward(&["run", "--to", "ship1", "--", "true"]);
    assert!(output.status.success(), "{output:?}");
}
