//! The checker: compares what was asked, what the station claims and what was witnessed.
//!
//! Pure. It knows the rules of the product's promise and nothing of how the three accounts were gathered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

mod again;

pub(crate) use self::again::{Again, Wishes};
use steward_protocol::Digest;

use super::{
    claims::{Claim, Claimed},
    witness::{Line, Place, Truth},
};

/// What one message was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its name, which is also the token its command writes down.
    pub(crate) name: String,
    /// The file it was dropped in.
    pub(crate) file: String,
    pub(crate) nodes: Vec<String>,
    pub(crate) success_codes: Vec<i64>,
    pub(crate) idempotent: bool,
    /// Whether its program exists.
    pub(crate) startable: bool,
    /// Whether its deadline is so short that it may pass.
    pub(crate) may_expire: bool,
    /// Whether its command outlives its timeout.
    pub(crate) overstays: bool,
    /// Whether its command is a witness; others are only checked for what is claimed.
    pub(crate) witnessed: bool,
}

/// Where the files of the inbox are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Names that lie in `.done`, once per occurrence.
    pub(crate) done: Vec<String>,
    /// Names that lie in `.rejected`.
    pub(crate) rejected: Vec<String>,
    /// Names that lie in the inbox or in `.processing`.
    pub(crate) waiting: Vec<String>,
}

/// What was done to the world that excuses some claims.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excuses {
    /// Nodes whose agent was killed, or whose journal was lost: what it ran may be `interrupted`.
    pub(crate) interrupted: BTreeSet<String>,
    /// Nodes that ran out of something: what they could not start is `failed` without a start.
    pub(crate) short: BTreeSet<String>,
    /// Nodes whose clock was shifted: when their commands wrote something cannot be told by the line.
    pub(crate) skewed: BTreeSet<String>,
}

/// Everything that is compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) asked: &'a [Asked],
    /// Files dropped, with whether the station should take them.
    pub(crate) dropped: &'a BTreeMap<String, bool>,
    pub(crate) files: &'a Files,
    pub(crate) claimed: &'a [Claimed],
    pub(crate) truth: &'a Truth,
    pub(crate) excuses: &'a Excuses,
    pub(crate) wishes: &'a Wishes,
    /// Whether `claimed` holds every message of the station.
    pub(crate) everything: bool,
}

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Breach {
    /// What was dropped or accepted is gone, or not settled after everything was well again.
    Lost,
    /// Accepted more often than it was dropped, or what nobody dropped.
    Invented,
    /// Started more than once on a node.
    DoubleStart,
    /// `succeeded`, and it did not end so.
    FalseSuccess,
    /// A state that says it never ran, and it did.
    RanAfterAll,
    /// A state that says it ran, and it never did.
    NeverRan,
    /// It ended, and otherwise than claimed.
    OtherEnd,
    /// A command ran that was not the one asked for.
    Altered,
    /// Said to be cancelled for good, and then it was started, or was something else.
    CancelledInVain,
    /// A repetition of another message than the one that was to be repeated.
    OtherLineage,
    /// A repetition that did not wait until what it repeats was settled.
    TooEarly,
    /// A repetition of what had succeeded.
    Needless,
    /// A final state nothing that happened can explain.
    Unexplained,
}

impl Breach {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Invented => "invented",
            Self::DoubleStart => "double start",
            Self::FalseSuccess => "false success",
            Self::RanAfterAll => "ran after all",
            Self::NeverRan => "never ran",
            Self::OtherEnd => "other end",
            Self::Altered => "altered",
            Self::CancelledInVain => "cancelled in vain",
            Self::OtherLineage => "other lineage",
            Self::TooEarly => "too early",
            Self::Needless => "needless",
            Self::Unexplained => "unexplained",
        }
    }
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) breach: Breach,
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            breach,
            id,
            node,
            name,
            evidence,
        } = self;
        let word = breach.as_str().to_uppercase();
        write!(
            formatter,
            "{word}: message {name} (id {id}) on node {node}: {evidence}"
        )
    }
}

/// Returns every promise that is broken.
pub(crate) fn judge(case: Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    files(case, &mut found);
    let mut by_name: BTreeMap<&str, Vec<&Claimed>> = BTreeMap::new();
    for claimed in case.claimed {
        by_name.entry(&claimed.name).or_default().push(claimed);
    }
    for asked in case.asked {
        let claims = by_name.remove(asked.name.as_str()).unwrap_or_default();
        message(case, asked, &claims, &mut found);
    }
    if case.everything {
        for (name, claims) in by_name {
            let evidence = format!(
                "the station knows {} of it and nobody dropped it",
                claims.len()
            );
            found.push(violation(
                Breach::Invented,
                &claims[0].id,
                "-",
                name,
                evidence,
            ));
        }
        strangers(case, &mut found);
        again::missing(case, &mut found);
    }
    found
}

fn violation(breach: Breach, id: &str, node: &str, name: &str, evidence: String) -> Violation {
    Violation {
        breach,
        id: id.to_owned(),
        node: node.to_owned(),
        name: name.to_owned(),
        evidence,
    }
}

/// Every file is accepted once or rejected once.
fn files(case: Case<'_>, found: &mut Vec<Violation>) {
    let Files {
        done,
        rejected,
        waiting,
    } = case.files;
    let count = |list: &[String]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in list {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    };
    let (done, rejected, waiting) = (count(done), count(rejected), count(waiting));
    for (file, good) in case.dropped {
        let at = |counts: &BTreeMap<String, usize>| counts.get(file).copied().unwrap_or(0);
        let (done, rejected, waiting) = (at(&done), at(&rejected), at(&waiting));
        let (breach, expected) = match (good, done, rejected, waiting) {
            (true, 1, 0, 0) | (false, 0, 1, 0) => continue,
            (_, 0, 0, 0) => (Breach::Lost, "once in .done or .rejected"),
            (_, 0, 0, _) => (Breach::Lost, "accepted or rejected by now"),
            (true, 0, _, _) => (Breach::Lost, "accepted, for it is a good file"),
            _ => (Breach::Invented, "exactly once in one place"),
        };
        let evidence = format!(
            "file {file} should be {expected}; it is {done} times in .done, {rejected} times in .rejected, {waiting} times waiting"
        );
        found.push(violation(breach, "-", "-", "-", evidence));
    }
}

fn message(case: Case<'_>, asked: &Asked, claims: &[&Claimed], found: &mut Vec<Violation>) {
    let (repeats, firsts): (Vec<&Claimed>, Vec<&Claimed>) = claims
        .iter()
        .partition(|claimed| claimed.retry_of.is_some());
    for repeat in repeats {
        again::repetition(case, asked, (repeat, claims), found);
    }
    let [claimed] = firsts[..] else {
        let claims = &firsts;
        let breach = if claims.is_empty() {
            Breach::Lost
        } else {
            Breach::Invented
        };
        let ids: Vec<&str> = claims.iter().map(|claimed| claimed.id.as_str()).collect();
        let evidence = format!(
            "dropped once in {}, the station has it {} times: {}",
            asked.file,
            ids.len(),
            ids.join(", ")
        );
        let id = ids.first().copied().unwrap_or("-");
        return found.push(violation(breach, id, "-", &asked.name, evidence));
    };
    for node in &asked.nodes {
        let claims = claimed
            .deliveries
            .iter()
            .filter(|claim| claim.node == *node);
        let claims: Vec<&Claim> = claims.collect();
        let breach = match claims[..] {
            [claim] => delivery(
                case,
                Matter {
                    asked,
                    id: &claimed.id,
                    claim,
                    repeats: None,
                },
            ),
            _ => Some((
                Breach::Lost,
                format!("the station has {} deliveries to this node", claims.len()),
            )),
        };
        if let Some((breach, evidence)) = breach {
            found.push(violation(breach, &claimed.id, node, &asked.name, evidence));
        }
    }
    if claimed.deliveries.len() > asked.nodes.len() {
        let evidence = format!("it was for {:?} only", asked.nodes);
        found.push(violation(
            Breach::Invented,
            &claimed.id,
            "-",
            &asked.name,
            evidence,
        ));
    }
}

/// One delivery that is judged.
#[derive(Debug, Clone, Copy)]
struct Matter<'a> {
    asked: &'a Asked,
    id: &'a str,
    claim: &'a Claim,
    /// The delivery it repeats.
    repeats: Option<&'a Claim>,
}

impl Matter<'_> {
    fn place(&self) -> Place {
        Place {
            id: self.id.to_owned(),
            node: self.claim.node.clone(),
        }
    }
}

/// What was witnessed of one delivery.
struct Seen<'a> {
    lines: &'a [Line],
    starts: usize,
    ends: Vec<i32>,
}

impl Seen<'_> {
    fn evidence(&self, claim: &Claim) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        let witnessed = match lines.is_empty() {
            true => "nothing".to_owned(),
            false => lines.join(" | "),
        };
        format!(
            "claimed {} (exit {:?}, signal {:?}, reason {:?}); witnessed {witnessed}",
            claim.state, claim.exit_code, claim.signal, claim.reason
        )
    }
}

fn delivery(case: Case<'_>, matter: Matter<'_>) -> Option<(Breach, String)> {
    let Matter { asked, claim, .. } = matter;
    let place = matter.place();
    let lines = case.truth.at(&place);
    let seen = Seen {
        lines,
        starts: lines.iter().filter(|line| line.end.is_none()).count(),
        ends: lines.iter().filter_map(|line| line.end).collect(),
    };
    let breach = if lines.iter().any(|line| line.token != asked.name) {
        Some(Breach::Altered)
    } else if started_twice(asked, lines) {
        Some(Breach::DoubleStart)
    } else if again::is_in_vain(case, &place, claim, &seen) {
        Some(Breach::CancelledInVain)
    } else if asked.witnessed {
        by_state(case, matter, &seen)
    } else {
        unwitnessed(claim)
    };
    breach.map(|breach| (breach, seen.evidence(claim)))
}

/// An idempotent command may be started again by the agent, which then counts its attempts; the same attempt
/// twice is a double start like any other.
fn started_twice(asked: &Asked, lines: &[Line]) -> bool {
    let starts = lines.iter().filter(|line| line.end.is_none());
    let attempts: Vec<&str> = starts.map(|line| line.attempt.as_str()).collect();
    let distinct: BTreeSet<&str> = attempts.iter().copied().collect();
    attempts.len() > 1 && (!asked.idempotent || distinct.len() != attempts.len())
}

fn unwitnessed(claim: &Claim) -> Option<Breach> {
    match claim.state.as_str() {
        "succeeded" | "interrupted" => None,
        "accepted" | "sent" | "received" | "running" | "deferred" | "unknown" => Some(Breach::Lost),
        _ => Some(Breach::Unexplained),
    }
}

fn by_state(case: Case<'_>, matter: Matter<'_>, seen: &Seen<'_>) -> Option<Breach> {
    let Matter { asked, claim, .. } = matter;
    let excuses = case.excuses;
    let ran = seen.starts > 0;
    let broken = |is_broken: bool, breach| is_broken.then_some(breach);
    match claim.state.as_str() {
        "succeeded" => succeeded(asked, claim, seen),
        "failed" => failed(case, asked, claim, seen),
        "timed_out" => {
            broken(!ran, Breach::NeverRan).or_else(|| broken(!asked.overstays, Breach::Unexplained))
        }
        "rejected" => broken(ran, Breach::RanAfterAll).or(Some(Breach::Unexplained)),
        "expired" => broken(ran, Breach::RanAfterAll)
            .or_else(|| broken(!asked.may_expire, Breach::Unexplained)),
        "cancelled" => again::cancelled(case, matter, seen),
        // Between the record of the start and the first line of the command lies a moment, so a killed agent
        // excuses an interrupted one that never got to its first line.
        "interrupted" => broken(
            !excuses.interrupted.contains(&claim.node),
            Breach::Unexplained,
        ),
        _ => Some(Breach::Lost),
    }
}

fn succeeded(asked: &Asked, claim: &Claim, seen: &Seen<'_>) -> Option<Breach> {
    let is_witnessed = |code: &i32| {
        let code = i64::from(*code);
        asked.success_codes.contains(&code) && claim.exit_code == Some(code)
    };
    let written = format!("{}\n", asked.name);
    let digest = Digest::of(written.as_bytes()).to_string();
    let foreign = claim.stdout.as_ref().is_some_and(|text| *text != written)
        || claim
            .stdout_blake3
            .as_ref()
            .is_some_and(|known| *known != digest);
    if seen.starts == 0 || !seen.ends.iter().any(is_witnessed) || foreign {
        return Some(Breach::FalseSuccess);
    }
    None
}

fn failed(case: Case<'_>, asked: &Asked, claim: &Claim, seen: &Seen<'_>) -> Option<Breach> {
    let not_started = match claim.exit_code {
        Some(126 | 127) => !asked.startable,
        Some(_) => false,
        None => claim.signal.is_none() && case.excuses.short.contains(&claim.node),
    };
    if not_started {
        return (seen.starts > 0).then_some(Breach::RanAfterAll);
    }
    if seen.starts == 0 {
        return Some(Breach::NeverRan);
    }
    // What a signal ended has no end of its own to be compared with.
    let code = claim.exit_code?;
    let witnessed = seen.ends.iter().any(|end| i64::from(*end) == code);
    (!witnessed || asked.success_codes.contains(&code)).then_some(Breach::OtherEnd)
}

/// Nothing may have run that the station does not know.
fn strangers(case: Case<'_>, found: &mut Vec<Violation>) {
    let known: BTreeSet<(&str, &str)> = case
        .claimed
        .iter()
        .flat_map(|claimed| {
            let of = |claim| (claimed.id.as_str(), AsRef::as_ref(claim));
            claimed
                .deliveries
                .iter()
                .map(move |claim: &Claim| of(&claim.node))
        })
        .collect();
    for (place, lines) in case.truth.places() {
        if !known.contains(&(place.id.as_str(), place.node.as_str())) {
            let token = &lines[0].token;
            let evidence = format!("ran, and the station never sent it: {}", lines[0].text);
            found.push(violation(
                Breach::Altered,
                &place.id,
                &place.node,
                token,
                evidence,
            ));
        }
    }
    for line in &case.truth.unreadable {
        let evidence = format!("a line of the witness cannot be read: {line:?}");
        found.push(violation(Breach::Altered, "-", "-", "-", evidence));
    }
}

#[cfg(test)]
mod tests;
