//! Agents that are killed or end, and brokers that are away: what was accepted arrives, and what may be lost is said.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn what_was_accepted_survives_a_kill_and_what_may_be_lost_is_said() {
    let field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"))
        + &input("datagrams", &format!("udp://127.0.0.1:{}", free_port()));
    let (mut agent, station) = pair(&field, &config).await;
    let first = station.world().hellos[0].1.instance;
    station.world().logs.keeps = false;
    let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    sender
        .write_all(numbered(0, 5000).as_bytes())
        .expect("it is taken");
    // What the guarantee asks for: they were committed.
    let spool = field.path("ship1").join("logs/spool/app");
    eventually("5000 messages in the spool", || {
        (spooled(&spool) == 5000).then_some(())
    })
    .await;
    agent.kill();
    station.world().logs.keeps = true;
    let _agent = start(&field, &config);
    station.met_again("ship1", first).await;
    open(&config).await;
    let stored = texts(&station, "app", 5000).await;
    assert_eq!(numbers(&stored), (0..5000).collect::<Vec<_>>());
    let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    sender
        .write_all(numbered(5000, 5001).as_bytes())
        .expect("it is taken");
    texts(&station, "app", 5001).await;
    // Nobody knows what stood in the buffers of either.
    for domain in ["app", "datagrams"] {
        eventually("the word on the kill", || {
            (!station.world().logs.gaps(domain).is_empty()).then_some(())
        })
        .await;
        let gaps = station.world().logs.gaps(domain);
        let said: Vec<_> = gaps.iter().map(|gap| (gap.reason, gap.count)).collect();
        assert_eq!(said, [(Reason::UncleanStart, None)], "{domain}");
    }
    check_order(&station);
    let world = station.world();
    let of_app = |record: &&Stored| record.domain.as_str() == "app";
    let last: Vec<_> = world.logs.records.iter().rev().filter(of_app).collect();
    let [message, gap, before, ..] = last.as_slice() else {
        panic!("too little has come: {last:?}")
    };
    assert!(
        gap.gap.is_some() && gap.position == 0 && message.position == 1,
        "the gap comes first: {gap:?}"
    );
    let follows = (gap.generation, Some(before.generation));
    assert!(world.logs.order.contains(&follows), "{follows:?}");
}

/// Sends numbered lines for as long as somebody takes them, and returns the number behind the last.
fn send_until_cut(port: u16, mut next: usize) -> usize {
    let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    loop {
        let until = next + 20;
        if sender.write_all(numbered(next, until).as_bytes()).is_err() {
            return until;
        }
        // Not faster than this station takes them: nobody waits for all that would be left.
        std::thread::sleep(Duration::from_millis(1));
        next = until;
    }
}

#[tokio::test]
async fn killed_in_mid_stream_again_and_again_nothing_comes_twice_or_out_of_order() {
    const KILLS: usize = 5;
    let field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let station = field.station().await;
    let mut next = 0;
    for _ in 0..KILLS {
        let mut agent = start(&field, &config);
        let seen = station.world().logs.count("app");
        open(&config).await;
        let sending = std::thread::spawn(move || send_until_cut(port, next));
        texts(&station, "app", seen + 1000).await;
        agent.kill();
        next = sending.join().expect("a number");
    }
    let _agent = start(&field, &config);
    as_it_grows("the word on every kill", || {
        let world = station.world();
        let is_told = world.logs.gaps("app").len() >= KILLS;
        (world.logs.count("app"), is_told.then_some(()))
    })
    .await;
    check_order(&station);
    let world = station.world();
    let numbers = numbers(&world.logs.texts("app"));
    assert!(numbers.is_sorted_by(|one, other| one < other));
    let gaps = world.logs.gaps("app");
    let is_it = gaps.iter().all(|gap| gap.reason == Reason::UncleanStart);
    assert!(is_it && gaps.len() == KILLS, "{gaps:?}");
    let order = &world.logs.order;
    let continues = |pair: &[(_, _)]| pair[1].1 == Some(pair[0].0);
    assert!(order.windows(2).all(continues), "{order:?}");
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_loses_nothing_and_says_nothing_of_a_loss() {
    let field = Field::new();
    let port = free_port();
    let gram = field.path("gram");
    let config = [
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("gram", &format!("unixgram://{}", gram.display())),
    ]
    .concat();
    let (mut agent, station) = pair(&field, &config).await;
    let first = station.world().hellos[0].1.instance;
    station.world().logs.keeps = false;
    let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let datagrams = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let text = numbered(0, 3000);
    sender.write_all(text.as_bytes()).expect("it is taken");
    for line in text.lines().take(100) {
        datagrams
            .send_to(line.as_bytes(), &gram)
            .expect("it is taken");
    }
    // More than the datagrams: the connection is one of the agent's.
    station
        .hello("something of the connection", |_, hello| {
            (hello.counters.get("log_messages")? > &100).then_some(())
        })
        .await;
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    assert!(!gram.exists(), "the socket is left behind");
    station.world().logs.keeps = true;
    let _agent = start(&field, &config);
    station.met_again("ship1", first).await;
    let stored = texts(&station, "tcp", 3000).await;
    assert_eq!(numbers(&stored), (0..3000).collect::<Vec<_>>());
    assert_eq!(texts(&station, "gram", 100).await.len(), 100);
    assert_eq!(station.world().logs.gaps("tcp").len(), 0);
    check_order(&station);
}

#[tokio::test]
async fn while_the_broker_is_away_logs_are_kept_and_arrive_in_order_afterwards() {
    let mut field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let (_agent, station) = pair(&field, &config).await;
    let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    for round in 0..3 {
        let from = round * 4000;
        sender
            .write_all(numbered(from, from + 2000).as_bytes())
            .expect("it is taken");
        if round == 0 {
            texts(&station, "app", 1000).await;
        }
        field.cut();
        sender
            .write_all(numbered(from + 2000, from + 4000).as_bytes())
            .expect("it is taken");
        field.heal();
    }
    let stored = texts(&station, "app", 12_000).await;
    assert_eq!(numbers(&stored), (0..12_000).collect::<Vec<_>>());
    check_order(&station);
    // What the station has is not kept for ever.
    station
        .hello("an empty spool", |_, hello| {
            let budget = hello.budgets.get("log_spool_bytes")?;
            (budget.used < 64 << 10).then_some(())
        })
        .await;
}
