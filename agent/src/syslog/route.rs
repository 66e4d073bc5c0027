//! Sorts messages by rules: to which domain, or not at all, and counts what was suppressed until it can be told.
//!
//! Pure: time is what the portions say. The first rule that fits decides. What a rule drops on purpose is counted and is
//! no gap; what sampling and rate limits suppress is one, with its number and the rule's name. It does not know where
//! messages come from, nor what becomes of them.

use std::{sync::Arc, time::Duration};

use regex::bytes::{Regex, RegexBuilder};
use steward_protocol::{
    Domain,
    logs::{Gap, Micros, Reason},
    syslog::{self, Facility, Message, Severity},
};

use super::spool::{Piece, Portion};
use crate::config::syslog::{Action, RuleSpec};

/// Most memory of one pattern, compiled: a rule is not to cost more than the spool's buffers.
const PATTERN_BYTES: usize = 1 << 20;

/// How long what was suppressed may wait until it is told.
const TELL: Duration = Duration::from_secs(10);

/// Compiles a pattern.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn pattern(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .build()
}

/// Rules, ready to be used.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    spec: RuleSpec,
    pattern: Option<Regex>,
    domain: Option<Arc<Domain>>,
}

impl Rules {
    /// Makes rules of what was written.
    ///
    /// # Errors
    ///
    /// Fails with the first pattern that is none.
    pub fn new(specs: &[RuleSpec]) -> Result<Self, regex::Error> {
        let rule = |spec: &RuleSpec| {
            Ok(Rule {
                pattern: spec.pattern.as_deref().map(pattern).transpose()?,
                domain: spec.domain.clone().map(Arc::new),
                spec: spec.clone(),
            })
        };
        let rules = specs.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the first rule that fits a message.
    fn find(&self, source: &str, raw: &[u8]) -> Option<usize> {
        let pri = syslog::pri(raw);
        // Most rules look at nothing else.
        let mut read = None;
        self.rules
            .iter()
            .position(|rule| rule.fits(source, pri, raw, &mut read))
    }
}

impl Rule {
    fn fits<'r>(
        &self,
        source: &str,
        pri: Option<(Facility, Severity)>,
        raw: &'r [u8],
        read: &mut Option<Message<'r>>,
    ) -> bool {
        let spec = &self.spec;
        let facility = pri.map(|(facility, _)| facility);
        let facilities = &spec.facilities;
        if !facilities.is_empty() && !facility.is_some_and(|one| facilities.contains(&one)) {
            return false;
        }
        // As everywhere: what has none counts as a notice.
        let severity = pri.map_or(Severity::Notice, |(_, severity)| severity);
        if spec
            .severities
            .is_some_and(|these| !these.contains(severity.number()))
        {
            return false;
        }
        if !spec.sources.is_empty() && !spec.sources.iter().any(|one| is_source(one, source)) {
            return false;
        }
        if !(spec.apps.is_empty() && spec.hosts.is_empty()) {
            let message = read.get_or_insert_with(|| Message::parse(raw));
            if !(is_one_of(&spec.apps, message.app()) && is_one_of(&spec.hosts, message.host())) {
                return false;
            }
        }
        self.pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(raw))
    }
}

fn is_one_of(names: &[String], found: Option<&[u8]>) -> bool {
    names.is_empty() || found.is_some_and(|found| names.iter().any(|name| name.as_bytes() == found))
}

/// Compares a source with what a rule names: an input, with or without the peer, or the beginning of one.
fn is_source(wanted: &str, source: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => source.starts_with(beginning),
        None => {
            let input = source.split_once('#').map_or(source, |(input, _)| input);
            wanted == source || wanted == input
        }
    }
}

/// What a rule has let through and suppressed.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Since when `passed` is counted.
    window: Option<Micros>,
    passed: u64,
    seen: u64,
    suppressed: u64,
    since: Micros,
    until: Micros,
}

impl Tally {
    /// Tells whether one more message passes.
    fn passes(&mut self, action: Action, now: Micros) -> bool {
        let passes = match action {
            Action::Keep => true,
            Action::Drop => false,
            Action::Sample { one_of } => {
                self.seen += 1;
                (self.seen - 1).is_multiple_of(one_of.max(1))
            }
            Action::RateLimit { most, per } => {
                // A clock that was set back begins anew as well.
                let is_over = self
                    .window
                    .is_none_or(|window| !(0..micros(per)).contains(&(now.0 - window.0)));
                if is_over {
                    self.window = Some(now);
                    self.passed = 0;
                }
                self.passed += 1;
                self.passed <= most
            }
        };
        if !passes && action != Action::Drop {
            if self.suppressed == 0 {
                self.since = now;
                self.until = now;
            }
            self.suppressed += 1;
            self.since = self.since.min(now);
            self.until = self.until.max(now);
        }
        passes
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// A part of a portion, and where it goes.
pub type Part = (Arc<Domain>, Portion);

/// Whether everything suppressed is told, or only what has waited long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// All of it.
    All,
    /// What is due.
    Due,
}

/// Sorts the messages of one input.
#[derive(Debug)]
pub struct Router {
    domain: Arc<Domain>,
    rules: Arc<Rules>,
    tallies: Vec<Tally>,
    dropped: u64,
    /// The rule of each message of a portion, to save making it anew.
    found: Vec<Option<u16>>,
}

impl Router {
    /// Returns one that sends to `domain` what no rule sends elsewhere.
    pub fn new(domain: Arc<Domain>, rules: Arc<Rules>) -> Self {
        Self {
            tallies: vec![Tally::default(); rules.rules.len()],
            domain,
            rules,
            dropped: 0,
            found: Vec::new(),
        }
    }

    /// Returns how many messages rules have dropped on purpose.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the domains that messages of an input may go to, its own first.
    pub fn targets(&self, input: &str) -> Vec<Arc<Domain>> {
        let mut targets = vec![Arc::clone(&self.domain)];
        for rule in &self.rules.rules {
            // A source may name a peer of the input.
            let is_fit = |one: &String| is_source(one, input) || one.starts_with(input);
            let sources = &rule.spec.sources;
            let may_fit = sources.is_empty() || sources.iter().any(is_fit);
            if let Some(domain) = &rule.domain
                && may_fit
                && rule.spec.action != Action::Drop
                && !targets.contains(domain)
            {
                targets.push(Arc::clone(domain));
            }
        }
        targets
    }

    /// Puts other rules in the place of these. What these have suppressed is told first.
    pub fn replace(&mut self, rules: Arc<Rules>, now: Micros) -> Vec<(Arc<Domain>, Gap)> {
        let told = self.tell(now, Tell::All);
        self.tallies = vec![Tally::default(); rules.rules.len()];
        self.rules = rules;
        told
    }

    /// Sorts a portion; its parts keep their order.
    pub fn split(&mut self, portion: Portion) -> Vec<Part> {
        if self.rules.is_empty() {
            return vec![(Arc::clone(&self.domain), portion)];
        }
        let mut parts = self.summaries(&portion);
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        for piece in &portion.messages {
            found.push(self.judge(&portion, piece));
        }
        match found.first() {
            Some(&first) if found.iter().all(|one| *one == first) => {
                if let Some(domain) = self.target(first) {
                    join(&mut parts, &domain, portion);
                } else {
                    self.keep_gaps(&mut parts, portion);
                }
            }
            Some(_) => self.spread(&mut parts, portion, &found),
            None => self.keep_gaps(&mut parts, portion),
        }
        self.found = found;
        parts
    }

    /// Returns what has been suppressed since it was last told.
    pub fn tell(&mut self, now: Micros, how_much: Tell) -> Vec<(Arc<Domain>, Gap)> {
        let mut told = Vec::new();
        for (rule, tally) in self.rules.rules.iter().zip(&mut self.tallies) {
            let waited = now.0 - tally.since.0;
            let is_due = how_much == Tell::All || !(0..micros(TELL)).contains(&waited);
            if tally.suppressed == 0 || !is_due {
                continue;
            }
            let reason = match rule.spec.action {
                Action::Sample { .. } => Reason::Sampled,
                Action::Keep | Action::Drop | Action::RateLimit { .. } => Reason::RateLimit,
            };
            let gap = Gap::new(Some(tally.suppressed), reason)
                .between(tally.since, tally.until)
                .with_detail(rule.spec.name.clone());
            let domain = rule.domain.as_ref().unwrap_or(&self.domain);
            told.push((Arc::clone(domain), gap));
            tally.suppressed = 0;
        }
        told
    }

    fn summaries(&mut self, portion: &Portion) -> Vec<Part> {
        let mut parts = Vec::new();
        for (domain, gap) in self.tell(portion.received, Tell::Due) {
            let mut part = Portion::new(Arc::clone(&portion.source), portion.received);
            part.gaps.push(gap);
            join(&mut parts, &domain, part);
        }
        parts
    }

    /// Returns the rule that keeps a message, `None` for none, [`GONE`] if it does not pass.
    fn judge(&mut self, portion: &Portion, piece: &Piece) -> Option<u16> {
        let raw = portion.bytes_of(piece);
        let index = self.rules.find(&portion.source, raw)?;
        let action = self.rules.rules.get(index)?.spec.action;
        let passes = self
            .tallies
            .get_mut(index)?
            .passes(action, portion.received);
        if action == Action::Drop {
            self.dropped += 1;
        }
        match u16::try_from(index) {
            Ok(index) if passes => Some(index),
            Ok(_) | Err(_) => Some(GONE),
        }
    }

    /// Returns where a message goes.
    fn target(&self, found: Option<u16>) -> Option<Arc<Domain>> {
        let domain = match found {
            Some(GONE) => return None,
            Some(index) => self
                .rules
                .rules
                .get(usize::from(index))
                .and_then(|rule| rule.domain.as_ref()),
            None => None,
        };
        Some(Arc::clone(domain.unwrap_or(&self.domain)))
    }

    /// Keeps what is known to be missing, of a portion of which no message is kept.
    fn keep_gaps(&self, parts: &mut Vec<Part>, mut portion: Portion) {
        if !portion.gaps.is_empty() {
            portion.arena.clear();
            portion.messages.clear();
            join(parts, &self.domain, portion);
        }
    }

    /// Sorts messages of one portion to several domains.
    fn spread(&self, parts: &mut Vec<Part>, mut portion: Portion, found: &[Option<u16>]) {
        let gaps = std::mem::take(&mut portion.gaps);
        if !gaps.is_empty() {
            let mut part = Portion::new(Arc::clone(&portion.source), portion.received);
            part.gaps = gaps;
            join(parts, &self.domain, part);
        }
        for (piece, one) in portion.messages.iter().zip(found) {
            let Some(domain) = self.target(*one) else {
                continue;
            };
            let at = parts.iter().position(|(known, _)| *known == domain);
            let at = at.unwrap_or_else(|| {
                let part = Portion::new(Arc::clone(&portion.source), portion.received);
                parts.push((domain, part));
                parts.len() - 1
            });
            if let Some((_, part)) = parts.get_mut(at) {
                part.copy(&portion, piece);
            }
        }
    }
}

/// Stands for a message that does not pass.
const GONE: u16 = u16::MAX;

/// Adds a portion behind what goes to the same domain.
fn join(parts: &mut Vec<Part>, domain: &Arc<Domain>, mut portion: Portion) {
    match parts.iter_mut().find(|(known, _)| known == domain) {
        Some((_, part)) if part.messages.is_empty() => {
            part.gaps.append(&mut portion.gaps);
            std::mem::swap(&mut part.gaps, &mut portion.gaps);
            *part = portion;
        }
        Some(_) | None => parts.push((Arc::clone(domain), portion)),
    }
}

#[cfg(test)]
mod tests;
