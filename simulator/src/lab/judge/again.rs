//! What is promised of messages called off and of messages repeated.
//!
//! Pure, like its parent. It knows what was asked of the station and what it answered, not how.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Breach, Case, Claim, Claimed, Matter, Seen, Violation, delivery, violation};
use crate::lab::witness::{Line, Place};

/// A repetition the station has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    /// The message it repeats.
    pub(crate) of: String,
    pub(crate) nodes: Vec<String>,
    /// Where it was said to be held until the old one is settled.
    pub(crate) held: Vec<String>,
}

/// What was asked about messages on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// What somebody asked to call off, by itself or by repeating it; answered or not.
    pub(crate) cancels: BTreeSet<Place>,
    /// What the station has said is cancelled and never ran.
    pub(crate) done: BTreeSet<Place>,
    /// Repetitions by their id.
    pub(crate) again: BTreeMap<String, Again>,
    /// How often a message was to be repeated without an answer: each may have been recorded.
    pub(crate) unanswered: BTreeMap<String, usize>,
}

/// Returns whether the station took back that this was cancelled for good.
pub(super) fn is_in_vain(case: Case<'_>, place: &Place, claim: &Claim, seen: &Seen<'_>) -> bool {
    case.wishes.done.contains(place) && (seen.starts > 0 || claim.state != "cancelled")
}

/// Either it never ran, or it was stopped. What was stopped right after its start wrote nothing.
pub(super) fn cancelled(case: Case<'_>, matter: Matter<'_>, seen: &Seen<'_>) -> Option<Breach> {
    let claim = matter.claim;
    if !claim.was_stopped() && seen.starts > 0 {
        return Some(Breach::RanAfterAll);
    }
    if let Some(code) = claim.exit_code {
        if seen.starts == 0 {
            return Some(Breach::NeverRan);
        }
        if !seen.ends.iter().any(|end| i64::from(*end) == code) {
            return Some(Breach::OtherEnd);
        }
    }
    let needless = matter.repeats.is_some_and(|old| old.state == "succeeded");
    let was_asked = needless || case.wishes.cancels.contains(&matter.place());
    (!was_asked).then_some(Breach::Unexplained)
}

/// Judges a message that repeats another; `claims` are all of its name.
pub(super) fn repetition(
    case: Case<'_>,
    asked: &Asked,
    (repeat, claims): (&Claimed, &[&Claimed]),
    found: &mut Vec<Violation>,
) {
    if let Some((breach, evidence)) = lineage(case, repeat, claims) {
        return found.push(violation(breach, &repeat.id, "-", &asked.name, evidence));
    }
    let old = claims
        .iter()
        .find(|old| repeat.retry_of.as_ref() == Some(&old.id));
    for claim in &repeat.deliveries {
        let of_node = |old: &&Claim| old.node == claim.node;
        let repeats = old.and_then(|old| old.deliveries.iter().find(of_node));
        let matter = Matter {
            asked,
            id: &repeat.id,
            claim,
            repeats,
        };
        let breach = old
            .and_then(|old| order(case, matter, &old.id))
            .or_else(|| delivery(case, matter));
        if let Some((breach, evidence)) = breach {
            let (id, node) = (&repeat.id, &claim.node);
            found.push(violation(breach, id, node, &asked.name, evidence));
        }
    }
}

/// It is there because somebody asked for it, and goes where it was to go.
fn lineage(case: Case<'_>, repeat: &Claimed, claims: &[&Claimed]) -> Option<(Breach, String)> {
    let of = repeat.retry_of.as_deref().unwrap_or_default();
    let nodes: BTreeSet<&str> = nodes(repeat);
    let Some(old) = claims.iter().find(|old| old.id == of) else {
        let evidence = format!("it repeats {of}, which is no message of its name");
        return Some((Breach::OtherLineage, evidence));
    };
    let Some(again) = case.wishes.again.get(&repeat.id) else {
        let is_unconfirmed = |claimed: &&&Claimed| {
            claimed.retry_of.as_deref() == Some(of) && !case.wishes.again.contains_key(&claimed.id)
        };
        let there = claims.iter().filter(is_unconfirmed).count();
        let asked = case.wishes.unanswered.get(of).copied().unwrap_or(0);
        let evidence = format!(
            "{there} repetitions of {of} nobody was told of; {asked} were asked for without an answer"
        );
        return (there > asked || !nodes.is_subset(&self::nodes(old)))
            .then_some((Breach::Invented, evidence));
    };
    let wanted: BTreeSet<&str> = again.nodes.iter().map(String::as_str).collect();
    let evidence = format!(
        "it was to repeat {} on {:?}; it repeats {of} on {nodes:?}",
        again.of, again.nodes
    );
    (again.of != of || wanted != nodes).then_some((Breach::OtherLineage, evidence))
}

fn nodes(claimed: &Claimed) -> BTreeSet<&str> {
    let claims = claimed.deliveries.iter();
    claims.map(|claim| claim.node.as_str()).collect()
}

/// Nothing of a repetition happens before what it repeats is settled, and nothing at all if that succeeded.
fn order(case: Case<'_>, matter: Matter<'_>, old_id: &str) -> Option<(Breach, String)> {
    let (claim, old) = (matter.claim, matter.repeats?);
    let lines = case.truth.at(&matter.place());
    let first = lines.iter().find(|line| line.end.is_none());
    if old.state == "succeeded" {
        let evidence = format!(
            "message {old_id}, which it repeats, succeeded here; this one is {} and witnessed {:?}",
            claim.state,
            first.map(|line| &line.text)
        );
        // Its own deadline may have passed while it was held; that it could, is for the state to answer.
        let is_over = match claim.state.as_str() {
            "cancelled" => true,
            "expired" => claim.since <= old.since,
            _ => false,
        };
        let is_needless = first.is_some() || !is_over;
        return is_needless.then_some((Breach::Needless, evidence));
    }
    let first = first?;
    let old_place = Place {
        id: old_id.to_owned(),
        node: claim.node.clone(),
    };
    let after = |line: &&Line| line.number > first.number;
    let overlap = case.truth.at(&old_place).iter().find(after);
    let settled = old.since.unwrap_or(i64::MIN);
    let is_early = first.at < settled && !case.excuses.skewed.contains(&claim.node);
    let evidence = format!(
        "it was started ({}) before message {old_id}, which it repeats, was settled as {} at {settled}: {:?}",
        first.text,
        old.state,
        overlap.map(|line| &line.text)
    );
    (overlap.is_some() || is_early).then_some((Breach::TooEarly, evidence))
}

/// What the station confirmed is there.
pub(super) fn missing(case: Case<'_>, found: &mut Vec<Violation>) {
    let known: BTreeSet<&str> = case
        .claimed
        .iter()
        .map(|claimed| claimed.id.as_str())
        .collect();
    for (id, again) in &case.wishes.again {
        if !known.contains(id.as_str()) {
            let evidence = format!("the station confirmed that it repeats {}", again.of);
            found.push(violation(Breach::Lost, id, "-", "-", evidence));
        }
    }
}
