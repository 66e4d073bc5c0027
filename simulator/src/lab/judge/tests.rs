//! Shows that the checker sees every kind of broken promise, and none where there is none.

use steward_protocol::Digest;

use super::*;

fn asked() -> Asked {
    Asked {
        name: "m1".to_owned(),
        file: "f.json".to_owned(),
        nodes: vec!["n1".to_owned()],
        success_codes: vec![0],
        idempotent: false,
        startable: true,
        may_expire: false,
        overstays: false,
        witnessed: true,
    }
}

fn claim(state: &str, exit_code: Option<i64>) -> Claim {
    Claim {
        node: "n1".to_owned(),
        state: state.to_owned(),
        exit_code,
        signal: None,
        started: exit_code.is_some(),
        stdout: None,
        stdout_blake3: None,
        reason: String::new(),
        since: None,
        held: false,
    }
}

fn claimed(claim: Claim) -> Claimed {
    Claimed {
        id: "a".to_owned(),
        name: "m1".to_owned(),
        retry_of: None,
        deliveries: vec![claim],
    }
}

fn truth(lines: &[&str]) -> Truth {
    let mut truth = Truth::default();
    for line in lines {
        truth.note(line);
    }
    truth
}

fn place(id: &str) -> Place {
    Place {
        id: id.to_owned(),
        node: "n1".to_owned(),
    }
}

const START: &str = "start a n1 1 m1 5 -";
const AGAIN: &str = "start a n1 2 m1 5 -";
const END: &str = "end a n1 1 m1 6 0";
const END_3: &str = "end a n1 1 m1 6 3";

/// One message in one good file that was done, and everything else as a row says.
struct Row {
    asked: Asked,
    claimed: Vec<Claimed>,
    lines: &'static [&'static str],
    files: Files,
    excuses: Excuses,
    wishes: Wishes,
}

impl Row {
    fn new(claim: Claim, lines: &'static [&'static str]) -> Self {
        Self {
            asked: asked(),
            claimed: vec![claimed(claim)],
            lines,
            files: Files {
                done: vec!["f.json".to_owned()],
                ..Files::default()
            },
            excuses: Excuses::default(),
            wishes: Wishes::default(),
        }
    }

    fn found(&self) -> Vec<Breach> {
        let truth = truth(self.lines);
        let violations = judge(Case {
            asked: std::slice::from_ref(&self.asked),
            dropped: &BTreeMap::from([("f.json".to_owned(), true)]),
            files: &self.files,
            claimed: &self.claimed,
            truth: &truth,
            excuses: &self.excuses,
            wishes: &self.wishes,
            everything: true,
        });
        violations
            .iter()
            .map(|violation| violation.breach)
            .collect()
    }
}

fn check(what: &str, row: &Row, expected: &[Breach]) {
    assert_eq!(row.found(), expected, "{what}");
}

fn check_state(claim: Claim, lines: &'static [&'static str], expected: &[Breach]) {
    let what = format!("{claim:?} {lines:?}");
    check(&what, &Row::new(claim, lines), expected);
}

#[test]
fn what_was_claimed_is_compared_with_what_was_witnessed() {
    use Breach::*;
    check_state(claim("succeeded", Some(0)), &[START, END], &[]);
    check_state(claim("succeeded", Some(0)), &[], &[FalseSuccess]);
    check_state(claim("succeeded", Some(0)), &[START], &[FalseSuccess]);
    check_state(claim("succeeded", Some(0)), &[END], &[FalseSuccess]);
    check_state(
        claim("succeeded", Some(0)),
        &[START, END_3],
        &[FalseSuccess],
    );
    check_state(
        claim("succeeded", Some(3)),
        &[START, END_3],
        &[FalseSuccess],
    );
    check_state(claim("failed", Some(3)), &[START, END_3], &[]);
    check_state(claim("failed", Some(3)), &[], &[NeverRan]);
    check_state(claim("failed", Some(3)), &[START, END], &[OtherEnd]);
    check_state(claim("failed", Some(0)), &[START, END], &[OtherEnd]);
    check_state(claim("failed", Some(127)), &[], &[NeverRan]);
    check_state(claim("failed", None), &[START], &[]);
    check_state(claim("timed_out", None), &[START], &[Unexplained]);
    check_state(claim("timed_out", None), &[], &[NeverRan]);
    check_state(claim("rejected", None), &[], &[Unexplained]);
    check_state(claim("rejected", None), &[START], &[RanAfterAll]);
    check_state(claim("expired", None), &[], &[Unexplained]);
    check_state(claim("expired", None), &[START], &[RanAfterAll]);
    check_state(claim("cancelled", None), &[], &[Unexplained]);
    check_state(claim("cancelled", None), &[START], &[RanAfterAll]);
    check_state(claim("interrupted", None), &[START], &[Unexplained]);
    for open in [
        "accepted", "sent", "received", "running", "deferred", "unknown",
    ] {
        check_state(claim(open, None), &[], &[Lost]);
    }
}

#[test]
fn a_second_start_is_seen_unless_the_order_allows_it_and_the_agent_counts_it() {
    let mut row = Row::new(claim("succeeded", Some(0)), &[START, END, AGAIN]);
    check("not idempotent", &row, &[Breach::DoubleStart]);
    row.asked.idempotent = true;
    check("idempotent", &row, &[]);
    row.lines = &[START, START, END];
    check("one attempt twice", &row, &[Breach::DoubleStart]);
}

#[test]
fn what_was_done_to_the_world_excuses_what_follows_from_it() {
    let node = BTreeSet::from(["n1".to_owned()]);
    let mut row = Row::new(claim("interrupted", None), &[]);
    row.excuses.interrupted = node.clone();
    check("a killed agent", &row, &[]);

    let mut row = Row::new(claim("failed", None), &[]);
    check("nothing was short", &row, &[Breach::NeverRan]);
    row.excuses.short = node;
    check("a node short of something", &row, &[]);

    let mut row = Row::new(claim("failed", Some(127)), &[]);
    row.asked.startable = false;
    check("no such program", &row, &[]);

    let mut row = Row::new(claim("expired", None), &[]);
    row.asked.may_expire = true;
    check("a short deadline", &row, &[]);

    let mut row = Row::new(claim("timed_out", None), &[START]);
    row.asked.overstays = true;
    check("a command that overstays", &row, &[]);

    let mut row = Row::new(claim("cancelled", None), &[]);
    row.wishes.cancels.insert(place("a"));
    check("cancelled on request", &row, &[]);
}

#[test]
fn a_command_that_is_not_the_one_asked_for_is_seen() {
    let row = Row::new(
        claim("succeeded", Some(0)),
        &["start a n1 1 other 5 -", "end a n1 1 other 6 0"],
    );
    check("another token", &row, &[Breach::Altered]);
    let row = Row::new(
        claim("succeeded", Some(0)),
        &[START, END, "start a n2 1 m1 5 -"],
    );
    check("on a node it was not for", &row, &[Breach::Altered]);
    let row = Row::new(claim("succeeded", Some(0)), &[START, END, "sta"]);
    check("a torn line", &row, &[Breach::Altered]);
    let mut row = Row::new(claim("succeeded", Some(0)), &[START, END]);
    row.claimed[0].deliveries[0].stdout = Some("m2\n".to_owned());
    check("the output of another", &row, &[Breach::FalseSuccess]);
    let mut row = Row::new(claim("succeeded", Some(0)), &[START, END]);
    let digest = |text: &[u8]| Some(Digest::of(text).to_string());
    row.claimed[0].deliveries[0].stdout_blake3 = digest(b"m2\n");
    check("cut output of another", &row, &[Breach::FalseSuccess]);
    row.claimed[0].deliveries[0].stdout_blake3 = digest(b"m1\n");
    check("its own output, cut", &row, &[]);
}

#[test]
fn what_is_gone_and_what_is_too_much_is_seen() {
    let good = || Row::new(claim("succeeded", Some(0)), &[START, END]);
    let mut row = good();
    row.claimed.clear();
    row.lines = &[];
    check("the message is gone", &row, &[Breach::Lost]);

    let mut row = good();
    row.claimed[0].deliveries.clear();
    row.lines = &[];
    check("the delivery is gone", &row, &[Breach::Lost]);

    let mut row = good();
    row.claimed.push(row.claimed[0].clone());
    check("accepted twice", &row, &[Breach::Invented]);

    let mut row = good();
    row.claimed.push(Claimed {
        name: "m9".to_owned(),
        ..row.claimed[0].clone()
    });
    check("accepted and never dropped", &row, &[Breach::Invented]);

    let mut row = good();
    row.files.done.clear();
    check("the file is gone", &row, &[Breach::Lost]);
    row.files.waiting = vec!["f.json".to_owned()];
    check("the file waits", &row, &[Breach::Lost]);
    row.files.waiting.clear();
    row.files.rejected = vec!["f.json".to_owned()];
    check("a good file was rejected", &row, &[Breach::Lost]);
    row.files.done = vec!["f.json".to_owned()];
    check("in two places", &row, &[Breach::Invented]);
}

/// A cancelled message, with a claim that says more than its state.
fn cancelled(lines: &'static [&'static str], change: impl FnOnce(&mut Claim)) -> Row {
    let mut claim = claim("cancelled", None);
    change(&mut claim);
    let mut row = Row::new(claim, lines);
    row.wishes.cancels.insert(place("a"));
    row
}

#[test]
fn what_was_cancelled_never_ran_or_was_stopped_and_says_so() {
    use Breach::*;
    let stopped = |claim: &mut Claim| {
        claim.started = true;
        claim.signal = Some(15);
    };
    let by_itself = |claim: &mut Claim| {
        claim.started = true;
        claim.exit_code = Some(0);
    };
    check("never started", &cancelled(&[], |_| ()), &[]);
    check("but it was", &cancelled(&[START], |_| ()), &[RanAfterAll]);
    check("stopped", &cancelled(&[START], stopped), &[]);
    check("before its first line", &cancelled(&[], stopped), &[]);
    check("an end", &cancelled(&[START, END], by_itself), &[]);
    check("no end", &cancelled(&[START], by_itself), &[OtherEnd]);
    check("no start", &cancelled(&[], by_itself), &[NeverRan]);
    let refound = |claim: &mut Claim| {
        claim.reason = "cancelled by x; the agent was restarted while it ran".to_owned();
    };
    check("a child found again", &cancelled(&[START], refound), &[]);
    let mut row = cancelled(&[START], stopped);
    row.wishes.cancels.clear();
    check("nobody asked", &row, &[Unexplained]);
}

#[test]
fn what_was_said_to_be_cancelled_stays_so() {
    use Breach::*;
    let mut row = cancelled(&[], |_| ());
    row.wishes.done.insert(place("a"));
    check("it did", &row, &[]);
    row.lines = &[START, END];
    check("it was started", &row, &[CancelledInVain]);
    row.claimed = vec![claimed(claim("succeeded", Some(0)))];
    check("started, and no longer cancelled", &row, &[CancelledInVain]);
    row.lines = &[];
    row.claimed = vec![claimed(claim("expired", None))];
    check("no longer cancelled", &row, &[CancelledInVain]);
}

const START_B: &str = "start b n1 1 m1 9 -";
const END_B: &str = "end b n1 1 m1 9 0";

/// Message `a` ended as `old` at 8, and `b` repeats it.
fn repeated(old: Claim, new: Claim, lines: &'static [&'static str]) -> Row {
    let mut row = Row::new(old, lines);
    row.claimed[0].deliveries[0].since = Some(8);
    row.claimed.push(Claimed {
        id: "b".to_owned(),
        retry_of: Some("a".to_owned()),
        ..claimed(new)
    });
    row.wishes.cancels.insert(place("a"));
    let again = Again {
        of: "a".to_owned(),
        nodes: vec!["n1".to_owned()],
        held: vec!["n1".to_owned()],
    };
    row.wishes.again.insert("b".to_owned(), again);
    row
}

fn good() -> Row {
    let (old, new) = (claim("failed", Some(3)), claim("succeeded", Some(0)));
    repeated(old, new, &[START, END_3, START_B, END_B])
}

#[test]
fn a_repetition_is_a_message_of_its_own_and_only_of_what_was_to_be_repeated() {
    use Breach::*;
    check("as asked", &good(), &[]);
    let mut row = good();
    row.lines = &[START, END_3, START_B, START_B, END_B];
    check("started twice", &row, &[DoubleStart]);

    let mut row = good();
    row.wishes.again.clear();
    check("nobody asked", &row, &[Invented]);
    row.wishes.unanswered.insert("a".to_owned(), 1);
    check("asked without an answer", &row, &[]);

    let mut row = good();
    row.wishes.again.get_mut("b").expect("there").of = "c".to_owned();
    check("of another message", &row, &[OtherLineage]);
    let mut row = good();
    row.claimed[1].retry_of = Some("c".to_owned());
    check("of no message of this name", &row, &[OtherLineage]);
    let mut row = good();
    row.wishes.again.get_mut("b").expect("there").nodes = vec!["n2".to_owned()];
    check("on another node", &row, &[OtherLineage]);

    let mut row = good();
    row.lines = &[START, END_3];
    row.claimed.pop();
    check("gone", &row, &[Lost]);
}

#[test]
fn a_repetition_waits_until_what_it_repeats_is_settled() {
    use Breach::*;
    let mut row = good();
    row.claimed[0].deliveries[0].since = Some(10);
    check("it was settled later", &row, &[TooEarly]);
    row.excuses.skewed.insert("n1".to_owned());
    check("by a clock that is wrong", &row, &[]);

    let mut row = good();
    row.lines = &[START, START_B, END_B, END_3];
    check("the old one still ran", &row, &[TooEarly]);

    let (old, new) = (claim("succeeded", Some(0)), claim("cancelled", None));
    let mut row = repeated(old, new, &[START, END]);
    check("cancelled after a success", &row, &[]);
    row.lines = &[START, END, START_B];
    check("but started", &row, &[Needless]);
    row.lines = &[START, END];
    row.claimed[1].deliveries[0] = claim("expired", None);
    row.asked.may_expire = true;
    row.claimed[1].deliveries[0].since = Some(7);
    check("expired while it was held", &row, &[]);
    row.claimed[1].deliveries[0].since = Some(9);
    check("expired after the success", &row, &[Needless]);
    row.claimed[1].deliveries[0] = claim("succeeded", Some(0));
    row.lines = &[START, END, START_B, END_B];
    check("run after a success", &row, &[Needless]);

    let (old, new) = (claim("failed", Some(3)), claim("cancelled", None));
    let row = repeated(old, new, &[START, END_3]);
    check("cancelled for nothing", &row, &[Unexplained]);
}
