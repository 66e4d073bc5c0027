//! The checks an order passes before anything happens, in their order (design section 7).
//!
//! Size, frame, subject, node and version here in [`read`]; instance, ledger and epoch in
//! [`admit`]; policy in [`policy`]. The journal asks for the rest, because time, duplicates and
//! limits depend on what it knows. Pure: no clock, no bus, no store.

use std::collections::BTreeSet;

use steward_protocol::{
    DecodeError, Deferral, Digest, Domain, InstanceId, Kind, LedgerId, MessageId, Method, NodeName,
    Order, Subject,
    envelope::{Envelope, Send},
};

use crate::{
    counters::Counter,
    journal::Cancellation,
    method::{Methods, Work},
};

/// Why a frame does not become an order.
#[derive(Debug)]
pub enum Unreadable {
    /// It is counted and never answered.
    Garbage {
        /// What it is counted as.
        counter: Counter,
        /// What was wrong.
        detail: String,
    },
    /// It is an order in a version this program does not read: refused by name.
    Version {
        /// The order's id.
        id: MessageId,
        /// The order's digest.
        digest: Digest,
        /// The refusal.
        reason: String,
    },
}

/// Reads an order that arrived on `subject`.
///
/// # Errors
///
/// Says whether it is garbage, or an order to be refused for its version.
pub fn read(subject: &Subject, bytes: &[u8]) -> Result<Envelope, Unreadable> {
    let envelope = Envelope::decode(bytes).map_err(|error| match error {
        DecodeError::Version {
            order: Some((id, digest)),
            ..
        } => Unreadable::Version {
            id,
            digest,
            reason: format!("version: the order {error}"),
        },
        DecodeError::Version { order: None, .. }
        | DecodeError::TooLarge { .. }
        | DecodeError::Damaged
        | DecodeError::Json(_) => Unreadable::Garbage {
            counter: Counter::GarbageFrame,
            detail: format!("a frame on {subject} {error}"),
        },
    })?;
    let order = envelope.body.order();
    // A reply-to can make a broker deliver an order somewhere else.
    if order.subject != *subject || order.to != subject.node {
        return Err(Unreadable::Garbage {
            counter: Counter::Redirected,
            detail: format!(
                "order {} for {} at {} arrived on {subject}",
                order.id, order.to, order.subject
            ),
        });
    }
    Ok(envelope)
}

/// Reads a cancellation that arrived on `subject`.
///
/// # Errors
///
/// Says what it is counted as, and what was wrong.
pub fn read_cancel(subject: &Subject, bytes: &[u8]) -> Result<Cancellation, (Counter, String)> {
    let cancellation = Cancellation::decode(bytes).map_err(|error| {
        let detail = format!("a cancellation on {subject} {error}");
        (Counter::GarbageFrame, detail)
    })?;
    let cancel = &cancellation.body;
    if cancel.subject.node != subject.node || cancel.subject.domain != subject.domain {
        let detail = format!(
            "the cancellation of order {} at {} arrived on {subject}",
            cancel.id, cancel.subject
        );
        return Err((Counter::Redirected, detail));
    }
    Ok(cancellation)
}

/// What this start of the agent knows of its station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// This start.
    pub instance: InstanceId,
    /// Whether this start has been welcomed.
    pub welcomed: bool,
    /// The ledger the journal belongs to, and the latest reign seen.
    pub pinned: Option<(LedgerId, u64)>,
}

/// Why an order does not reach the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// It is counted and not answered.
    Ignore(Counter),
    /// It is answered: not now.
    Defer(Deferral),
}

/// Checks that an order was sent to this start, by the right ledger, in a reign that is not over.
///
/// # Errors
///
/// Says whether to answer at all.
pub fn admit(standing: &Standing, send: &Send) -> Result<(), Bar> {
    if send.instance != standing.instance {
        return Err(Bar::Defer(Deferral::StaleInstance));
    }
    // Nothing to say yet: the station sends again after its welcome.
    let Some((ledger_id, epoch)) = standing.pinned.filter(|_| standing.welcomed) else {
        return Err(Bar::Ignore(Counter::BeforeWelcome));
    };
    if send.ledger_id != ledger_id {
        return Err(Bar::Defer(Deferral::ForeignLedger));
    }
    if send.epoch < epoch {
        return Err(Bar::Defer(Deferral::StaleEpoch));
    }
    Ok(())
}

/// What this node lets itself be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// The methods it offers.
    pub methods: &'a Methods,
    /// The domains it allows; any, if none are listed.
    pub domains: Option<&'a BTreeSet<Domain>>,
}

/// Checks that this node does such a thing, and reads the method's own body.
///
/// # Errors
///
/// Returns the reason of the refusal.
pub fn policy(order: &Order, policy: Policy<'_>) -> Result<Work, String> {
    let (subject, methods) = (&order.subject, policy.methods);
    let is_text = subject.method.as_str() == Method::Textlogging.as_str();
    if subject.kind == Kind::Event && !is_text {
        let text = match methods.offers(Method::Textlogging) {
            true => "the event textlogging, and ",
            false => "",
        };
        return Err(format!(
            "event: this node takes no event {} from its station; it takes {text}commands: {methods}",
            subject.method,
        ));
    }
    let work = Work::read(order, methods).map_err(|refusal| refusal.to_string())?;
    match policy.domains {
        Some(allowed) if !allowed.contains(&subject.domain) => Err(format!(
            "policy: domain {:?} is not one of this node's domains: {}",
            subject.domain.as_str(),
            listed(allowed)
        )),
        Some(_) | None => Ok(work),
    }
}

fn listed(domains: &BTreeSet<Domain>) -> String {
    let names: Vec<&str> = domains.iter().map(Domain::as_str).collect();
    names.join(", ")
}

/// Where a frame goes by its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// An order for the process of this subject.
    Order(Subject),
    /// The cancellation of an order; it does not queue behind its target.
    Cancel(Subject),
    /// The station's answer to a hello.
    Welcome,
    /// The station's word that something is stored.
    Confirm,
    /// What the station wants of a transfer of an order of this domain.
    Want(Domain),
    /// A chunk of what the station sends.
    Content,
    /// The station's word on which log records of this domain it has.
    Kept(Domain),
    /// An event this node does not take: refused.
    Unwanted(Subject),
    /// Not a subject of this node; says why.
    Garbage(String),
}

/// Routes a frame.
pub fn route(subject: &str, node: &NodeName) -> Route {
    let parsed: Subject = match subject.parse() {
        Ok(parsed) => parsed,
        Err(error) => return Route::Garbage(format!("subject {subject:?} {error}")),
    };
    if parsed.node != *node {
        return Route::Garbage(format!("subject {subject:?} is not for this node"));
    }
    match (parsed.kind, parsed.method.as_str()) {
        (Kind::Command, method) if method == Method::Cancel.as_str() => Route::Cancel(parsed),
        (Kind::Command, _) => Route::Order(parsed),
        (Kind::Event, "welcome") => Route::Welcome,
        (Kind::Event, "confirm") => Route::Confirm,
        (Kind::Event, "want") => Route::Want(parsed.domain),
        (Kind::Event, "content") => Route::Content,
        (Kind::Event, "kept") => Route::Kept(parsed.domain),
        (Kind::Event, method) if method == Method::Textlogging.as_str() => Route::Order(parsed),
        (Kind::Event, _) => Route::Unwanted(parsed),
    }
}

#[cfg(test)]
mod tests;
