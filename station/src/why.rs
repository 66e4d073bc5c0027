//! Why a delivery stands as it does: the causal explanation, in sentences.
//!
//! Pure: views and the courier's outlook go in, sentences come out. It says only what the ledger, the
//! roster and the node's own words support, with the time and on whose word; the last sentence says what
//! happens next, or what the operator can do. It asks nobody and knows no output format.

mod ended;
mod waiting;

use jiff::Timestamp;
use steward_protocol::{MessageId, NodeName, State};

use crate::{
    courier::Outlook,
    view::{BrokerView, DeliveryView, MessageView, NodeView, Sentence},
};

/// Everything an explanation may rest on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The time of the explanation.
    pub now: Timestamp,
    /// The station's name.
    pub station: &'a NodeName,
    /// The message.
    pub message: &'a MessageView,
    /// The delivery asked about.
    pub delivery: &'a DeliveryView,
    /// What is believed of its node.
    pub node: Option<&'a NodeView>,
    /// What the courier is doing about it; none when it is final.
    pub outlook: Option<&'a Outlook>,
    /// The station's connection to its broker.
    pub broker: &'a BrokerView,
}

/// Returns the explanation; at least two sentences.
pub fn explain(facts: &Facts<'_>) -> Vec<Sentence> {
    let mut story = Story {
        facts: *facts,
        told: Vec::new(),
    };
    story.open();
    match facts.delivery.state {
        State::Accepted => story.accepted(),
        State::Sent => story.sent(),
        State::Deferred => story.deferred(),
        State::Received => story.received(),
        State::Running => story.running(),
        State::Unknown => story.unknown(),
        State::Succeeded => story.succeeded(),
        State::Failed => story.failed(),
        State::TimedOut => story.timed_out(),
        State::Cancelled => story.cancelled(),
        State::Rejected => story.rejected(),
        State::Expired => story.expired(),
        State::Interrupted => story.interrupted(),
    }
    story.told
}

/// An explanation in the making.
struct Story<'a> {
    facts: Facts<'a>,
    told: Vec<Sentence>,
}

impl<'a> Story<'a> {
    /// Adds a sentence that follows from what is known in general.
    fn say(&mut self, text: impl Into<String>) {
        self.told.push(Sentence {
            text: text.into(),
            at: None,
            by: None,
        });
    }

    /// Adds a sentence somebody vouches for.
    fn tell(&mut self, text: impl Into<String>, at: Timestamp, by: &str) {
        self.told.push(Sentence {
            text: text.into(),
            at: Some(at),
            by: Some(by.to_owned()),
        });
    }

    fn delivery(&self) -> &'a DeliveryView {
        self.facts.delivery
    }

    fn name(&self) -> &'a str {
        self.facts.delivery.node.as_str()
    }

    fn id(&self) -> MessageId {
        self.facts.message.id
    }

    /// Who asked for what, when, and what it has to do with other messages.
    fn open(&mut self) {
        let (message, node) = (self.facts.message, self.name());
        let called = message
            .name
            .as_ref()
            .map_or(String::new(), |name| format!(" ({name:?})"));
        self.tell(
            format!(
                "Message {}{called} for {node} was accepted at {} from {}; {} submitted it.",
                message.id,
                when(message.accepted_at),
                message.source,
                message.submitted_by
            ),
            message.accepted_at,
            self.facts.station.as_str(),
        );
        if let Some(old) = message.retry_of {
            self.say(format!("It repeats message {old}."));
        }
        if let Some(last) = message.retried_by.last() {
            let more = match message.retried_by.len() {
                1 => String::new(),
                count => format!(", and by {} before it", count - 1),
            };
            self.say(format!("It has been repeated by message {last}{more}; what became of that one: steward msg show {last}."));
        }
    }

    /// The broker, where it is what is missing.
    fn broker(&mut self) {
        let broker = self.facts.broker;
        if broker.connected {
            return;
        }
        let reason = in_brackets(broker.reason.as_deref());
        self.tell(
            format!(
                "The station has no connection to its broker at {} since {}{reason}.",
                broker.url,
                when(broker.since)
            ),
            broker.since,
            self.facts.station.as_str(),
        );
    }

    /// How often and when it was sent, and that this proves nothing.
    fn sendings(&mut self) {
        let delivery = self.delivery();
        let first = delivery
            .transitions
            .iter()
            .find(|step| step.state == State::Sent);
        let last = self.facts.outlook.and_then(|outlook| outlook.sent_at);
        let Some(first) = first else { return };
        let times = match delivery.attempts {
            0 | 1 => format!("It was sent once, at {}", when(first.at)),
            attempts => format!("It was sent {attempts} times, first at {}", when(first.at)),
        };
        let is_order = delivery.cancel.is_none() && delivery.attempts > 1;
        let last = last
            .filter(|_| is_order)
            .map(|last| format!(" and last at {}", when(last)));
        let text = format!("{times}{}.", last.unwrap_or_default());
        self.tell(text, first.at, &first.observed_by);
        if let Some(deaf) = self.facts.outlook.and_then(|outlook| outlook.deaf_at) {
            let text = format!(
                "At {} the broker said that nobody listens for {}, so nothing is sent until it says hello.",
                when(deaf),
                self.name()
            );
            self.tell(text, deaf, self.facts.station.as_str());
        }
    }

    /// A request to cancel that the node has not confirmed.
    fn cancel_pending(&mut self) {
        let Some(cancel) = &self.delivery().cancel else {
            return;
        };
        let text = format!(
            "{} asked at {} to cancel it; {} has not confirmed that, so it stays {} until then.",
            cancel.by,
            when(cancel.at),
            self.name(),
            self.delivery().state
        );
        self.tell(text, cancel.at, &cancel.by);
        if let Some(sent) = self.sent_cancel() {
            let text = format!("The cancellation was last sent at {}.", when(sent));
            self.tell(text, sent, self.facts.station.as_str());
        }
    }

    /// When the cancellation was last sent, if it was.
    fn sent_cancel(&self) -> Option<Timestamp> {
        let asked = self.delivery().cancel.as_ref()?.at;
        let sent = self.facts.outlook?.sent_at?;
        // The last sending before the request was the order's.
        (sent >= asked).then_some(sent)
    }

    /// What the courier does next about something that may be on the node.
    fn next_sending(&self) -> String {
        let name = self.name();
        let what = match self.delivery().cancel {
            Some(_) if self.sent_cancel().is_some() => "The cancellation is sent again",
            Some(_) => "The cancellation is sent",
            None => "It is sent again",
        };
        let Some(outlook) = self.facts.outlook else {
            return format!("{what} when {name} says hello.");
        };
        match outlook
            .next_at
            .filter(|_| outlook.connected && outlook.ready)
        {
            Some(next) if next <= self.facts.now => format!("{what} at once."),
            Some(next) => format!(
                "{what} at {} if {name} has not answered by then.",
                when(next)
            ),
            None if !outlook.connected => {
                format!("{what} when the broker is back and {name} says hello.")
            }
            None => format!("{what} with the next hello of {name}."),
        }
    }

    /// The command that repeats it on this node.
    fn retry(&self) -> String {
        format!("steward msg retry {} --to {}", self.id(), self.name())
    }

    /// The command that cancels it on this node.
    fn cancel_command(&self) -> String {
        format!("steward msg cancel {} --to {}", self.id(), self.name())
    }
}

/// Returns a time to the second, UTC.
fn when(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Returns a reason in brackets, or nothing.
fn in_brackets(reason: Option<&str>) -> String {
    reason.map_or(String::new(), |reason| format!(" ({reason})"))
}

#[cfg(test)]
mod tests;
