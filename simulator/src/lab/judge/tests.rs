//! Shows that the checker sees every kind of broken promise, and none where there is none.

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
        reason: String::new(),
    }
}

fn claimed(claim: Claim) -> Claimed {
    Claimed {
        id: "a".to_owned(),
        name: "m1".to_owned(),
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
    row.excuses.cancelled = BTreeSet::from(["m1".to_owned()]);
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
