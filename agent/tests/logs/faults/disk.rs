//! A disk that is full, or was when the agent ended.

use super::*;

/// A disk of its own for an agent's state, in a name space for mounts; the script says what runs on it.
struct Confined {
    state: PathBuf,
}

impl Confined {
    fn start(field: &Field, config: &str, (place, script): (&str, &str)) -> Option<(Agent, Self)> {
        let tried = Command::new("unshare")
            .args(["-m", "true"])
            .stderr(Stdio::null())
            .status();
        if !tried.is_ok_and(|status| status.success()) {
            say_skipped("no name space for mounts can be made here");
            return None;
        }
        let state = field.path("ship1").join(place);
        fs::create_dir_all(&state).expect("a directory");
        let plain = field
            .agent("ship1")
            .config(&field.path("agent.toml"), config)
            .0;
        let script = format!(
            "mount -t tmpfs -o size=6m tmpfs {0} && cd {0} && {script}",
            state.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.env("RUST_LOG", "steward_agent=debug");
        let agent = AgentCommand(command).start();
        let root = PathBuf::from(format!("/proc/{}/root", agent.pid().as_raw_pid()));
        let state = root.join(state.strip_prefix("/").expect("a whole path"));
        Some((agent, Self { state }))
    }

    fn filler(&self) -> PathBuf {
        self.state.join("filler")
    }

    /// Fills the disk to the last byte.
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("a file");
        for size in [64 << 10, 1 << 10, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }
}

async fn storage_fault(station: &Station) {
    eventually("a fault that says the disk takes nothing", || {
        let world = station.world();
        let mut faults = world.faults.iter();
        let is_it = |subject: &str| subject.contains("syslogforwarding");
        faults
            .any(|fault| {
                fault.kind == "storage"
                    && fault
                        .subject
                        .as_ref()
                        .is_some_and(|one| is_it(&one.to_string()))
            })
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_streams_wait_datagrams_are_counted_and_it_goes_on_by_itself() {
    let field = Field::new();
    let port = free_port();
    let config = [
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("udp", &format!("udp://127.0.0.1:{port}")),
        "receive_buffer = \"4MiB\"\n".to_owned(),
    ]
    .concat();
    let station = field.station().await;
    let on_it = ("", "exec \"$0\" \"$@\"");
    let Some((_agent, disk)) = Confined::start(&field, &config, on_it) else {
        return;
    };
    station.met("ship1").await;
    open(&config).await;
    let mut sender = connect(port);
    sender
        .write_all(numbered(0, 1000).as_bytes())
        .expect("it is taken");
    texts(&station, "tcp", 1000).await;
    disk.fill();
    // More than the kernel keeps for both ends of a connection.
    let lines = noise(16_000, 1000);
    let text = joined(&lines);
    let sending = thread::spawn(move || {
        sender
            .write_all(text.as_bytes())
            .expect("it is taken in the end")
    });
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // More than there is room for in memory and in the kernel.
    let sent = noise(20_000, 1000);
    for line in &sent {
        datagrams
            .send_to(line.as_bytes(), ("127.0.0.1", port))
            .expect("it leaves");
    }
    storage_fault(&station).await;
    assert!(!sending.is_finished(), "the stream was not held back");
    fs::remove_file(disk.filler()).expect("room again");
    let stored = texts(&station, "tcp", 17_000).await;
    sending.join().expect("all was taken");
    assert_eq!(stored[1000..], lines);
    assert_eq!(station.world().logs.gaps("tcp").len(), 0);
    let lost = accounted(&station, "udp", sent.len() as u64).await;
    assert!(lost > 0);
    check_order(&station);
}

#[tokio::test]
async fn an_agent_that_ends_while_its_disk_is_full_says_at_its_next_start_that_something_is_missing()
 {
    let field = Field::new();
    let port = free_port();
    let config = input("tcp", &format!("tcp://127.0.0.1:{port}"));
    let station = field.station().await;
    let script = "\"$0\" \"$@\"; rm -f filler; exec \"$0\" \"$@\"";
    let Some((shell, disk)) = Confined::start(&field, &config, ("logs", script)) else {
        return;
    };
    let first = station.met("ship1").await;
    open(&config).await;
    disk.fill();
    let mut sender = connect(port);
    sender
        .write_all(numbered(0, 10).as_bytes())
        .expect("it is taken");
    storage_fault(&station).await;
    let pid = shell.pid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the shell runs");
    let agent = children
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let agent = agent.and_then(Pid::from_raw).expect("an agent");
    kill_process(agent, Signal::TERM).expect("it can be asked");
    station.met_again("ship1", first).await;
    eventually("the word on what is missing", || {
        let gaps = station.world().logs.gaps("tcp");
        gaps.iter()
            .any(|gap| gap.reason == Reason::UncleanStart)
            .then_some(())
    })
    .await;
}
