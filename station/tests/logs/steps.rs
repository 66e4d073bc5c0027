//! The store of logs harmed at every durable step.

use super::*;

/// Batches of two days and two lines, while a step of the store is harmed; then a station that is not.
fn stored_row(url: &str, at: usize, harm: Harm) -> Tried {
    let mut world = World::without_broker();
    url.clone_into(&mut world.url);
    drop(world.station());
    let folder = world.state_dir().join("logs");
    let traced = Traced::start(&world.serve_command(&[]), Aim { folder, at, harm });
    let day = |number: u64| i64::try_from(number / 2).expect("few") * 86_400;
    let (mut spool, mut other) = (Spool::new("nginx"), Spool::new("system"));
    let batches: Vec<_> = (0..4)
        .map(|number| {
            let text = text(number);
            (
                spool.batch(number, &[(day(number), 6, &text)]),
                other.batch(number, &[(day(number), 6, &text)]),
            )
        })
        .collect();
    let runtime = Runtime::new().expect("a runtime");
    let mut ship = runtime.block_on(Ship::new(&world, "ship1"));
    let is_over = runtime.block_on(ship.send_all(&batches, || traced.has_ended()));
    let steps: Vec<String> = traced.steps().iter().map(ToString::to_string).collect();
    let place = format!("step {at} of {steps:?}; log: {}", traced.log());
    assert!(
        is_over || traced.has_ended(),
        "nothing goes on after {place}"
    );
    let result = tried(traced);
    let _station = world.station();
    assert!(
        runtime.block_on(ship.send_all(&batches, || false)),
        "{place}"
    );
    let expected: String = (0..4).map(|number| text(number) + "\n").collect();
    for domain in ["nginx", "system"] {
        assert_eq!(
            logs(&world, &["-o", "raw", "--domain", domain]).1,
            expected,
            "{domain}: {place}"
        );
    }
    assert_eq!(logs(&world, &["verify"]).0, 0, "{place}");
    assert_eq!(logs(&world, &["--gaps"]).0, 0, "{place}");
    result
}

#[test]
fn logs_survive_a_crash_at_any_step() {
    sweep("logs, killed", |url, at| stored_row(url, at, Harm::Kill));
    sweep("logs, torn", |url, at| stored_row(url, at, Harm::Tear));
    sweep("logs, disk full once", |url, at| {
        stored_row(url, at, Harm::Fail(Errno::ENOSPC))
    });
}
