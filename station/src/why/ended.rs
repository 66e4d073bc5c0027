//! Why a delivery ended as it did.

use std::time::Duration;

use steward_protocol::State;

use super::{Story, in_brackets, when};

impl Story<'_> {
    pub(super) fn succeeded(&mut self) {
        self.outcome("succeeded");
        self.say(format!(
            "Nothing is left to do; what it printed: steward msg output {} {}.",
            self.id(),
            self.name()
        ));
    }

    pub(super) fn failed(&mut self) {
        self.outcome("failed");
        match self.delivery().exit_code {
            Some(127) => self.say("Exit code 127 usually means that the program was not found on the node."),
            Some(126) => self.say("Exit code 126 usually means that the program may not be executed, or that its directory does not exist."),
            _ => {}
        }
        let (id, name, retry) = (self.id(), self.name(), self.retry());
        self.say(format!("Read what it said: steward msg output {id} {name} --stream stderr. To run it again: {retry}."));
    }

    pub(super) fn timed_out(&mut self) {
        self.outcome("timed out");
        let limit = self
            .facts
            .message
            .timeout_ms
            .map_or(String::new(), |timeout| {
                format!(
                    " of {}",
                    humantime::format_duration(Duration::from_millis(timeout))
                )
            });
        let retry = self.retry();
        self.say(format!("{} stopped it because it ran longer than its timeout{limit}; what it printed until then is kept.", self.name()));
        self.say(format!("To run it again with the same timeout: {retry}; for a longer one, submit it as a new message."));
    }

    pub(super) fn rejected(&mut self) {
        let delivery = self.delivery();
        let reason = delivery.reason.as_deref().unwrap_or("it gave no reason");
        let text = format!(
            "{} refused it for good at {}, and never ran it: {reason}.",
            self.name(),
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        self.say("The same order would be refused again: correct the message, or what the node objects to, and submit it anew.");
    }

    pub(super) fn expired(&mut self) {
        let delivery = self.delivery();
        let expires = when(self.facts.message.expires_at);
        if self.is_stations_word() {
            let text = format!(
                "Its deadline passed at {expires} and it had never been sent, so it certainly did not run."
            );
            self.tell(text, delivery.since, &delivery.observed_by);
            self.presence();
        } else {
            self.sendings();
            let text = format!(
                "Its deadline passed at {expires}, and {} confirmed that it never started it, so it certainly did not run.",
                self.name()
            );
            self.tell(text, delivery.since, &delivery.observed_by);
        }
        let retry = self.retry();
        self.say(format!("If it is still wanted: {retry}."));
    }

    pub(super) fn interrupted(&mut self) {
        let (name, delivery) = (self.name(), self.delivery());
        let reason = in_brackets(delivery.reason.as_deref());
        let text = if self.is_stations_word() {
            self.sendings();
            format!(
                "{name} came back without the journal it had{reason}: whether it started this, and how that ended, cannot be known any more."
            )
        } else {
            format!(
                "{name} has it in its journal that it started this, but how it ended cannot be known any more{reason}."
            )
        };
        self.tell(text, delivery.since, &delivery.observed_by);
        let retry = self.retry();
        self.say(format!("It is never run again by itself, for it may have done all, some or none of its work: look at {name} first; then, if it is safe to run it again: {retry}."));
    }

    pub(super) fn cancelled(&mut self) {
        let (name, delivery) = (self.name(), self.delivery());
        if let Some(cancel) = &delivery.cancel {
            let text = format!("{} asked at {} to cancel it.", cancel.by, when(cancel.at));
            self.tell(text, cancel.at, &cancel.by);
        }
        let reason = in_brackets(delivery.reason.as_deref());
        let steps = &delivery.transitions;
        let was_running =
            delivery.started_at.is_some() || steps.iter().any(|step| step.state == State::Running);
        let text = match (self.is_stations_word(), was_running) {
            (true, _) => format!(
                "It was cancelled without ever having been sent, so it certainly never ran{reason}."
            ),
            (false, true) => format!(
                "{name} had started it, stopped it{}, and confirmed that{reason}; it may have done part of its work.",
                self.ending()
            ),
            (false, false) => {
                format!("{name} confirmed that it never started it and never will{reason}.")
            }
        };
        self.tell(text, delivery.since, &delivery.observed_by);
        let retry = self.retry();
        self.say(format!(
            "Nothing more happens. If it is wanted after all: {retry} --state cancelled."
        ));
    }

    /// What the node's ACK says about how it ended.
    fn outcome(&mut self, word: &str) {
        let (name, delivery) = (self.name(), self.delivery());
        let (ending, reason) = (self.ending(), in_brackets(delivery.reason.as_deref()));
        let text = format!(
            "{name}'s own answer to exactly this order says that it {word}{ending}{reason}; the station stored that at {}.",
            when(delivery.since)
        );
        self.tell(text, delivery.since, &delivery.observed_by);
        if let (Some(start), Some(end)) = (delivery.started_at, delivery.finished_at) {
            let text = format!(
                "By the clock of {name} it ran from {} to {}.",
                when(start),
                when(end)
            );
            self.tell(text, end, name);
        }
    }

    fn ending(&self) -> String {
        match (self.delivery().exit_code, self.delivery().signal) {
            (Some(code), _) => format!(" with exit code {code}"),
            (None, Some(signal)) => format!(" by signal {signal}"),
            (None, None) => String::new(),
        }
    }

    /// Whether the final state is the station's own conclusion, not the node's word.
    fn is_stations_word(&self) -> bool {
        self.delivery().observed_by == self.facts.station.as_str()
    }
}
