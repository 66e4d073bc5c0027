//! What the spool has of files and journals beyond what was noted: the agent was killed between the two. Those lines are
//! read again and not taken again.
//!
//! Every portion of them is received at a time of its own, later than all before it, and that time is noted with the
//! place. So what stands in the spool with a later time is what lies behind the noted place of its source; and for as long
//! as not all of that was met again, the place is not noted anew.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use steward_protocol::{
    Domain,
    logs::{Batch, Micros, Unpacker},
};

use super::{
    files::{self, hash},
    journal,
};
use crate::{
    config::{Logs, syslog::Listen},
    syslog::spool::{Found, Spool, disk::Disk},
};

/// Bytes of a domain that are looked through: more than can be in flight, with what others write meanwhile, also where
/// nothing of it compresses.
const LOOKED_THROUGH: u64 = 16 << 20;

/// How long what the spool has is held against what comes again, and delivery waits for that: it mostly is a moment. Only a
/// full spool, which must be delivered first, waits in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How sources of files begin.
const SCHEME: &str = "file://";

/// What is in the spool: how often each text of each source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    sources: HashMap<String, HashMap<u64, u32>>,
    /// When the last of them was received.
    newest: Micros,
}

/// What one input has noted.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// When its last portion was received that it has noted.
    pub(super) stamp: Micros,
    /// The sources it has noted something of, and when the last portion of each was received up to which it has.
    pub(super) sources: HashMap<String, Micros>,
}

impl Noted {
    /// Tells up to when all of a source is noted.
    fn until(&self, source: &str) -> Micros {
        self.sources.get(source).copied().unwrap_or(self.stamp)
    }
}

/// What is looked for on behalf of an input.
#[derive(Debug)]
struct Question {
    noted: Noted,
    /// The domains its lines may have gone to; none, if it does not read anything again.
    domains: BTreeSet<Domain>,
    /// Whether files that are noted nowhere may be its own.
    takes_new: bool,
}

/// What the spool has of an input, for the first of its runs: to later ones it would be what they have read themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForFirst(Arc<Mutex<Seen>>);

impl ForFirst {
    /// Tells whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Takes it away.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Finds what the spool has of each input beyond what that has noted.
pub(crate) fn beyond_notes<D: Disk>(
    dir: &Path,
    logs: &Logs,
    spool: &mut Spool<D>,
) -> Vec<ForFirst> {
    let mut questions = Vec::new();
    for input in &logs.inputs {
        let (noted, takes_new) = match &input.listen {
            Listen::Files(_) => (files::noted(dir, &input.name), true),
            Listen::Journal(_) => {
                let stamp = journal::noted(dir, &input.name);
                let sources = HashMap::from([(input.name.clone(), stamp)]);
                (Noted { stamp, sources }, false)
            }
            Listen::Udp(_)
            | Listen::Unixgram(_)
            | Listen::Tcp(_)
            | Listen::Tls(..)
            | Listen::Unix(_) => (Noted::default(), false),
        };
        let ways = logs.rules.iter().filter_map(|rule| rule.domain.clone());
        let domains: BTreeSet<Domain> = match input.listen.is_socket() {
            true => BTreeSet::new(),
            false => ways.chain([input.domain.clone()]).collect(),
        };
        questions.push(Question {
            noted,
            domains,
            takes_new,
        });
    }
    if questions.iter().all(|asked| asked.domains.is_empty()) {
        return questions.iter().map(|_| ForFirst::default()).collect();
    }
    let seen = find(spool, &questions).into_iter();
    seen.map(|seen| ForFirst(Arc::new(Mutex::new(seen))))
        .collect()
}

/// Finds for each input the lines that it has not noted any more.
fn find<D: Disk>(spool: &mut Spool<D>, inputs: &[Question]) -> Vec<Seen> {
    let mut seen = vec![Seen::default(); inputs.len()];
    let Ok(mut unpacker) = Unpacker::new() else {
        return seen;
    };
    let is_asked = |domain: &Domain| inputs.iter().any(|input| input.domains.contains(domain));
    let domains = spool.starts().map(|(domain, _)| domain);
    let domains: Vec<_> = domains.filter(|domain| is_asked(domain)).cloned().collect();
    for domain in domains {
        let Some(mut place) = spool.newest(&domain, LOOKED_THROUGH) else {
            continue;
        };
        loop {
            match spool.read(&domain, place) {
                Ok(Found::Batch(batch)) => {
                    place.position = batch.next;
                    take(&mut seen, inputs, &mut unpacker, &batch.payload);
                }
                Ok(Found::End {
                    follows: Some(next),
                    ..
                }) => place = next,
                // What cannot be read is taken again.
                Ok(Found::End { follows: None, .. } | Found::Nothing) | Err(_) => break,
            }
        }
    }
    seen
}

fn take(seen: &mut [Seen], inputs: &[Question], unpacker: &mut Unpacker, payload: &[u8]) {
    let Ok(batch) = Batch::read(payload) else {
        return;
    };
    let header = batch.header();
    let mut from = HashMap::<&str, Vec<usize>>::new();
    for source in &header.sources {
        let of = inputs_of(inputs, source, &header.domain, header.to);
        if !of.is_empty() {
            from.insert(source, of);
        }
    }
    if from.is_empty() {
        return;
    }
    let Ok(records) = unpacker.records(&batch) else {
        return;
    };
    for record in records
        .map_while(Result::ok)
        .filter(|record| !record.is_gap())
    {
        for index in from.get(record.source).into_iter().flatten() {
            if record.received > inputs[*index].noted.until(record.source) {
                seen[*index].add(record.source, record.received, record.bytes);
            }
        }
    }
}

/// Returns the inputs that may have read a source, of those that have noted less than up to a time. A file that is noted
/// nowhere is new to whoever reads it.
fn inputs_of(inputs: &[Question], source: &str, domain: &Domain, to: Micros) -> Vec<usize> {
    let knows = |input: &&Question| input.noted.sources.contains_key(source);
    let is_known = inputs.iter().any(|input| knows(&input));
    let is_new = !is_known && source.starts_with(SCHEME);
    let fits = |input: &Question| {
        (knows(&input) || (is_new && input.takes_new))
            && input.domains.contains(domain)
            && to > input.noted.until(source)
    };
    let inputs = inputs.iter().enumerate();
    inputs
        .filter(|(_, input)| fits(input))
        .map(|(index, _)| index)
        .collect()
}

impl Seen {
    /// Adds a message; of files, each line of it, for which of them belong together may be told another way.
    pub(super) fn add(&mut self, source: &str, received: Micros, message: &[u8]) {
        self.newest = self.newest.max(received);
        if !source.starts_with(SCHEME) {
            return self.put(source, message);
        }
        let lines = message.split(|byte| *byte == b'\n').map(files::trimmed);
        for line in lines.filter(|line| !line.is_empty()) {
            self.put(source, line);
        }
    }

    fn put(&mut self, source: &str, text: &[u8]) {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), HashMap::new());
        }
        if let Some(texts) = self.sources.get_mut(source) {
            *texts.entry(hash(&[text])).or_default() += 1;
        }
    }

    /// Tells whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Tells whether there are any of a source.
    pub(super) fn has(&self, source: &str) -> bool {
        self.sources.contains_key(source)
    }

    /// Returns when the last of them was received, also of those that were taken away since.
    pub(super) fn newest(&self) -> Micros {
        self.newest
    }

    /// Tells whether a text is there, and takes it away.
    pub(super) fn remove(&mut self, source: &str, text: &[u8]) -> bool {
        let Some(texts) = self.sources.get_mut(source) else {
            return false;
        };
        let key = hash(&[text]);
        let Some(count) = texts.get_mut(&key) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            texts.remove(&key);
        }
        if texts.is_empty() {
            self.sources.remove(source);
        }
        true
    }

    /// Leaves only sources of which that is true.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&str) -> bool) {
        self.sources.retain(|source, _| stays(source));
    }
}

/// Returns the source of a file's lines.
pub(super) fn source(name: &Path) -> String {
    format!("{SCHEME}{}", name.display())
}
