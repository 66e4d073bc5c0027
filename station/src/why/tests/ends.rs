//! What is said of deliveries that are over, and on whose word.

use super::*;

#[test]
fn an_end_says_how_and_on_whose_word() {
    let ended = |state, code| {
        World::new().sent_and(state, "ship1").with(move |world| {
            world.delivery.exit_code = code;
            world.delivery.started_at = Some(at(1));
            world.delivery.finished_at = Some(at(2));
        })
    };
    let own = "ship1's own answer to exactly this order says that it";
    let clock = "By the clock of ship1 it ran from 2026-11-21T08:01:00Z to 2026-11-21T08:02:00Z.";
    check(
        &ended(State::Succeeded, Some(0)),
        &[
            &format!("{own} succeeded with exit code 0"),
            clock,
            "steward msg output",
        ],
    );
    let retry = format!("steward msg retry {} --to ship1", id(1));
    check(
        &ended(State::Failed, Some(3)),
        &[
            &format!("{own} failed with exit code 3"),
            clock,
            &format!("--stream stderr. To run it again: {retry}."),
        ],
    );
    check(
        &ended(State::Failed, Some(127)),
        &[
            "failed with exit code 127",
            "the program was not found",
            &retry,
        ],
    );
    check(
        &ended(State::Failed, None).with(|world| world.delivery.signal = Some(9)),
        &["failed by signal 9", &retry],
    );
    check(
        &ended(State::TimedOut, None),
        &[
            &format!("{own} timed out"),
            "longer than its timeout of 5m",
            &format!("with the same timeout: {retry}"),
        ],
    );
    check(
        &World::new()
            .sent_and(State::Rejected, "ship1")
            .because("policy: not allowed"),
        &[
            "ship1 refused it for good at 2026-11-21T08:02:00Z, and never ran it: policy: not allowed.",
            "would be refused again",
        ],
    );
}

#[test]
fn expired_and_cancelled_name_the_proof() {
    let retry = format!("steward msg retry {} --to ship1", id(1));
    check(
        &World::new()
            .away(Presence::Offline)
            .with(|world| world.step(State::Expired, 60, "central")),
        &[
            "it had never been sent, so it certainly did not run.",
            "ship1 is offline",
            &format!("If it is still wanted: {retry}."),
        ],
    );
    check(
        &World::new().sent_and(State::Expired, "ship1"),
        &[
            "It was sent once",
            "ship1 confirmed that it never started it",
            "If it is still wanted",
        ],
    );
    check(
        &World::new()
            .with(|world| world.step(State::Cancelled, 6, "central"))
            .cancel(),
        &[
            "uid:0 asked at 2026-11-21T08:06:00Z to cancel it.",
            "without ever having been sent, so it certainly never ran",
            &format!("{retry} --state cancelled."),
        ],
    );
    check(
        &World::new().sent_and(State::Cancelled, "ship1").cancel(),
        &[
            "ship1 confirmed that it never started it and never will",
            "Nothing more happens.",
        ],
    );
    check(
        &World::sent()
            .with(|world| {
                world.step(State::Running, 2, "ship1");
                world.step(State::Cancelled, 7, "ship1");
                world.delivery.signal = Some(15);
            })
            .cancel(),
        &[
            "ship1 had started it, stopped it by signal 15, and confirmed that; it may have done part of its work.",
            "Nothing more happens.",
        ],
    );
}

#[test]
fn interrupted_says_what_is_not_known_and_what_to_do() {
    let retry = format!(
        "look at ship1 first; then, if it is safe to run it again: steward msg retry {} --to ship1.",
        id(1)
    );
    check(
        &World::new()
            .sent_and(State::Interrupted, "ship1")
            .because("the agent was killed"),
        &[
            "ship1 has it in its journal that it started this, but how it ended cannot be known any more (the agent was killed).",
            &retry,
        ],
    );
    check(
        &World::new()
            .sent_and(State::Interrupted, "central")
            .because("journal lost: another journal"),
        &[
            "It was sent once",
            "came back without the journal it had (journal lost: another journal): whether it started this",
            &retry,
        ],
    );
}
