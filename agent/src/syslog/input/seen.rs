//! What the spool has of files and journals beyond what was noted: the agent was killed between the two. Those lines are
//! read again and not taken again.
//!
//! Every portion of them is received at a time of its own, and that time is noted with the place. So what stands in the
//! spool with a later time is what lies behind the noted places.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
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

/// Segments of a domain that are looked through: more than can be in flight, with what others write meanwhile.
const SEGMENTS: usize = 4;

/// How long what the spool has is held against what comes again, and delivery waits for that: it mostly is a moment. Only a
/// full spool, which must be delivered first, waits in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How sources of files begin.
const SCHEME: &str = "file://";

/// Lines that are in the spool, by source, text and number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    lines: HashMap<u64, u32>,
}

/// What one input has noted.
#[derive(Debug)]
pub(super) struct Noted {
    /// When its last portion was received that it has noted.
    pub(super) stamp: Micros,
    /// The sources it has noted something of.
    pub(super) sources: HashSet<String>,
    /// The domains its lines may have gone to; none, if it does not read anything again.
    pub(super) domains: BTreeSet<Domain>,
    /// Whether files that are noted nowhere may be its own.
    pub(super) takes_new: bool,
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
    let mut noted = Vec::new();
    for input in &logs.inputs {
        let (stamp, sources, takes_new) = match &input.listen {
            Listen::Files(_) => {
                let (stamp, sources) = files::noted(dir, &input.name);
                (stamp, sources, true)
            }
            Listen::Journal(_) => {
                let stamp = journal::noted(dir, &input.name);
                (stamp, HashSet::from([input.name.clone()]), false)
            }
            Listen::Udp(_)
            | Listen::Unixgram(_)
            | Listen::Tcp(_)
            | Listen::Tls(..)
            | Listen::Unix(_) => (Micros::default(), HashSet::new(), false),
        };
        let ways = logs.rules.iter().filter_map(|rule| rule.domain.clone());
        let domains: BTreeSet<Domain> = match input.listen.is_socket() {
            true => BTreeSet::new(),
            false => ways.chain([input.domain.clone()]).collect(),
        };
        noted.push(Noted {
            stamp,
            sources,
            domains,
            takes_new,
        });
    }
    if noted.iter().all(|noted| noted.domains.is_empty()) {
        return vec![ForFirst::default(); noted.len()];
    }
    let seen = find(spool, &noted).into_iter();
    seen.map(|seen| ForFirst(Arc::new(Mutex::new(seen))))
        .collect()
}

/// Finds for each input the lines that it has not noted any more.
fn find<D: Disk>(spool: &mut Spool<D>, inputs: &[Noted]) -> Vec<Seen> {
    let mut seen = vec![Seen::default(); inputs.len()];
    let Ok(mut unpacker) = Unpacker::new() else {
        return seen;
    };
    let domains: Vec<_> = spool.starts().map(|(domain, _)| domain.clone()).collect();
    for domain in domains {
        let Some(mut place) = spool.newest(&domain, SEGMENTS) else {
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

fn take(seen: &mut [Seen], inputs: &[Noted], unpacker: &mut Unpacker, payload: &[u8]) {
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
            if record.received > inputs[*index].stamp {
                let lines = &mut seen[*index].lines;
                *lines.entry(line(record.source, record.bytes)).or_default() += 1;
            }
        }
    }
}

/// Returns the inputs that may have read a source, of those that have noted less than up to a time. A file that is noted
/// nowhere is new to whoever reads it.
fn inputs_of(inputs: &[Noted], source: &str, domain: &Domain, to: Micros) -> Vec<usize> {
    let knows = |input: &&Noted| input.sources.contains(source);
    let is_known = inputs.iter().any(|input| knows(&input));
    let is_new = !is_known && source.starts_with(SCHEME);
    let fits = |input: &Noted| {
        (knows(&input) || (is_new && input.takes_new))
            && input.domains.contains(domain)
            && to > input.stamp
    };
    let inputs = inputs.iter().enumerate();
    inputs
        .filter(|(_, input)| fits(input))
        .map(|(index, _)| index)
        .collect()
}

impl Seen {
    /// Tells whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Tells whether a line is there, and takes it away.
    pub(super) fn remove(&mut self, source: &str, bytes: &[u8]) -> bool {
        let key = line(source, bytes);
        let Some(count) = self.lines.get_mut(&key) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.lines.remove(&key);
        }
        true
    }
}

fn line(source: &str, bytes: &[u8]) -> u64 {
    hash(&[source.as_bytes(), bytes])
}

/// Returns the source of a file's lines.
pub(super) fn source(name: &Path) -> String {
    format!("{SCHEME}{}", name.display())
}
