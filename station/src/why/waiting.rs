//! Why a delivery is not final yet.

use std::time::Duration;

use jiff::SignedDuration;
use steward_protocol::{Deferral, ProcessState};

use super::{Story, in_brackets, when};
use crate::view::Presence;

impl Story<'_> {
    pub(super) fn accepted(&mut self) {
        let (name, expires) = (self.name(), when(self.facts.message.expires_at));
        if let Some(holder) = self.delivery().held_by.first() {
            self.say(format!("It has not been sent: it is held until message {holder}, which it repeats, is settled on {name}, so that the two never run together."));
            return self.say(format!("It is sent when that one has ended, and cancelled if that one turns out to have succeeded; what that one waits for: steward msg why {holder} {name}."));
        }
        self.say("It has never been sent, so it has certainly not run.");
        self.broker();
        self.presence();
        let is_heard = self.facts.node.is_some_and(|node| node.instance.is_some());
        let outlook = self.facts.outlook.filter(|outlook| outlook.ready);
        let next = match outlook {
            _ if !is_heard => {
                format!(
                    "It is sent when an agent says hello as {name}; check the name with steward node ls"
                )
            }
            _ if !self.facts.broker.connected => {
                format!("It is sent when the broker is back and {name} says hello")
            }
            None => format!("It is sent with the next hello of {name}"),
            Some(_) if self.ahead() => "It is sent when it comes near the front".to_owned(),
            Some(_) => format!("It is sent as soon as {name} has room for it"),
        };
        self.say(format!("{next}; otherwise it expires at {expires}."));
    }

    pub(super) fn sent(&mut self) {
        let name = self.name();
        self.sendings();
        self.say(format!("{name} has not answered; whether it arrived, and whether it ran, cannot be told from here."));
        self.broker();
        self.presence();
        self.cancel_pending();
        let next = self.next_sending();
        let expires = when(self.facts.message.expires_at);
        match self.delivery().cancel {
            Some(_) => self.say(next),
            None => self.say(format!(
                "{next} Without a word by {expires} it becomes unknown, which is not a failure."
            )),
        }
    }

    pub(super) fn deferred(&mut self) {
        self.sendings();
        let (name, delivery) = (self.name(), self.delivery());
        let known = self.facts.outlook.and_then(|outlook| outlook.deferral);
        let said = delivery.reason.as_deref();
        let reason = said
            .or_else(|| known.map(Deferral::as_str))
            .unwrap_or("it gave no reason");
        let text = format!(
            "{name} asked at {} to have it later: {reason}.",
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        let deferral = known.or_else(|| named(reason));
        if let Some(meaning) = deferral.and_then(meaning) {
            self.say(meaning);
        }
        if deferral == Some(Deferral::Gap) {
            self.ahead();
        }
        self.absent();
        self.cancel_pending();
        let next = self.next_sending();
        self.say(next);
    }

    pub(super) fn received(&mut self) {
        let (name, delivery) = (self.name(), self.delivery());
        let text = format!(
            "{name} stored it in its journal; the station heard so at {}. It has not said that it started it.",
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        self.ahead();
        self.process();
        self.absent();
        self.cancel_pending();
        if delivery.cancel.is_some() {
            let next = self.next_sending();
            return self.say(next);
        }
        self.say(format!(
            "{name} starts it when its turn comes, with or without the station; what it has not started by {} it never will. To stop it: {}.",
            when(self.facts.message.expires_at),
            self.cancel_command()
        ));
    }

    pub(super) fn running(&mut self) {
        let (name, delivery) = (self.name(), self.delivery());
        let text = format!(
            "{name} said that it started it; the station heard so at {}.",
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        self.absent();
        self.cancel_pending();
        if delivery.cancel.is_some() {
            let next = self.next_sending();
            return self.say(format!("{name} stops the command when the cancellation reaches it, and says how it ended. {next}"));
        }
        let end = self.facts.message.timeout_ms.and_then(|timeout| {
            let timeout = Duration::from_millis(timeout);
            let span = SignedDuration::try_from(timeout).ok()?;
            Some((timeout, delivery.since.saturating_add(span).ok()?))
        });
        match end {
            Some((timeout, end)) => self.say(format!(
                "Unless it ends before, {name} stops it at its timeout of {}, at about {}. To stop it now: {}.",
                humantime::format_duration(timeout),
                when(end),
                self.cancel_command()
            )),
            None => self.say(format!("{name} says when it ends. To stop it now: {}.", self.cancel_command())),
        }
    }

    pub(super) fn unknown(&mut self) {
        let (name, delivery) = (self.name(), self.delivery());
        self.sendings();
        let mut steps = delivery.transitions.iter().rev();
        let before = steps.find(|step| step.observed_by == name);
        match before {
            Some(step) => self.tell(
                format!(
                    "The last that {name} said of it was {}, at {}.",
                    step.state,
                    when(step.at)
                ),
                step.at,
                name,
            ),
            None => self.say(format!("{name} never said a word about it.")),
        }
        let text = format!(
            "Since {} it is unknown: the time for an answer has passed, and nothing proves how it ended, or that it never started.",
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        self.broker();
        self.presence();
        self.cancel_pending();
        match delivery.cancel {
            Some(_) => self.say(format!("When {name} returns it says what really happened; until then nothing more can be known.")),
            None => self.say(format!(
                "That is no failure: when {name} returns it says what really happened, and what it has not started by then it never will. To run it again once that is settled: {}.",
                self.retry()
            )),
        }
    }

    /// What comes before it among the messages of its subject. Returns whether there is anything.
    fn ahead(&mut self) -> bool {
        let Some(ahead) = self
            .facts
            .outlook
            .and_then(|outlook| outlook.ahead.as_ref())
        else {
            return false;
        };
        let more = match ahead.count {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        self.say(format!(
            "The messages of its subject run in order, and before it comes message {}, which is {}{more}; what that one waits for: steward msg why {} {}.",
            ahead.id,
            ahead.state,
            ahead.id,
            self.name()
        ));
        true
    }

    /// The node's own process for this subject, where it is the reason.
    fn process(&mut self) {
        let (name, subject) = (self.name(), &self.delivery().subject);
        let processes = self.facts.node.map(|node| node.processes.as_slice());
        let mut processes = processes.unwrap_or_default().iter();
        let Some(process) = processes.find(|process| process.subject == *subject) else {
            return;
        };
        let fault = process.last_fault.as_ref();
        let fault = fault.map_or(String::new(), |fault| format!("; its last fault: {fault}"));
        let text = match process.state {
            ProcessState::Restarting => {
                format!("The process for {subject} on {name} is waiting for its restart{fault}.")
            }
            ProcessState::Stopped => {
                format!(
                    "The process for {subject} on {name} is stopped, given up after its faults or by an operator{fault}."
                )
            }
            ProcessState::Running => format!("The process for {subject} on {name} is at work."),
            ProcessState::Idle | ProcessState::Other => return,
        };
        self.tell(text, process.since, name);
    }

    /// The broker or the node, only where one of them is away.
    fn absent(&mut self) {
        self.broker();
        if self
            .facts
            .node
            .is_none_or(|node| node.state != Presence::Online)
        {
            self.presence();
        }
    }

    /// What is believed of the node.
    pub(super) fn presence(&mut self) {
        let name = self.name();
        let Some(node) = self.facts.node.filter(|node| node.instance.is_some()) else {
            return self.say(format!("Nobody has ever heard of {name}: no agent has introduced itself to this station under that name."));
        };
        let seen = node.last_seen;
        let seen = seen.map_or(String::new(), |seen| {
            format!("; it was last heard at {}", when(seen))
        });
        let (since, reason) = (when(node.since), in_brackets(node.reason.as_deref()));
        let text = match node.state {
            Presence::Online => format!("{name} is online since {since}."),
            Presence::Late => format!("{name} is late since {since}{reason}{seen}."),
            Presence::Offline => format!("{name} is offline since {since}{reason}{seen}."),
            Presence::Unknown => {
                format!("{name} has not been heard since this station started at {since}{seen}.")
            }
        };
        self.tell(text, node.since, self.facts.station.as_str());
        if let Some(conflict) = &node.conflict {
            self.say(format!(
                "There is a conflict about who {name} is: {conflict}."
            ));
        }
    }
}

/// Returns the deferral whose word a reason begins with.
fn named(reason: &str) -> Option<Deferral> {
    let word = reason.split(':').next()?;
    let all = [
        Deferral::Busy,
        Deferral::Storage,
        Deferral::StaleInstance,
        Deferral::StaleEpoch,
        Deferral::ForeignLedger,
        Deferral::Gap,
        Deferral::Stopping,
        Deferral::Stopped,
    ];
    all.into_iter().find(|deferral| deferral.as_str() == word)
}

/// Returns what a deferral means to an operator.
fn meaning(deferral: Deferral) -> Option<&'static str> {
    Some(match deferral {
        Deferral::Busy => "Its queue is full, and it has not stored the order.",
        Deferral::Storage => {
            "It cannot write its journal, and runs nothing it cannot write down; look at the disk of the node."
        }
        Deferral::StaleInstance => {
            "The order was meant for an earlier start of its agent; the present one gets it anew."
        }
        Deferral::StaleEpoch => {
            "Its agent has heard of a later reign of this station: another one may be running on a copy of this ledger."
        }
        Deferral::ForeignLedger => {
            "Its agent belongs to another station's ledger; a takeover is approved at the agent with --accept-ledger."
        }
        Deferral::Gap => "It misses an earlier order of the same subject, and takes them in order.",
        Deferral::Stopping => "Its agent is ending; the next start gets the order.",
        Deferral::Stopped => {
            "Its process for this subject is stopped; when the cause is gone, start it by a message with the method processes, \"action\": \"start\" and the subject as \"process\"."
        }
        Deferral::Other => return None,
    })
}
