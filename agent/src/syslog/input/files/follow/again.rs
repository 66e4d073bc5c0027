//! What the spool has of files beyond the notes: it is met again and left away, or given up. Until then it is not noted
//! how far the log it is of was read.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
};

use super::{
    super::{
        super::seen::{Seen, source},
        lines::trimmed,
        settle::SEARCHES,
    },
    Flight, Follower, Packing, Part, Portion, gather,
};

/// Bytes of files after which nothing is held against what the spool has any more: more than is ever in flight.
const REREAD: u64 = 4 * super::super::FLIGHT;

impl Follower {
    /// Gives logs that were found their time, and forgets what the spool has of those that are gone.
    pub(super) fn know_new(&mut self) {
        // What the spool has of files that were noted nowhere is of those that the first listing finds.
        let stamp = match std::mem::replace(&mut self.is_listed, true) {
            false => self.book.stamp,
            true => self.stamp,
        };
        for log in self.book.logs.values_mut().filter(|log| log.stamp == 0) {
            log.stamp = stamp.0.max(1);
        }
        if !self.seen.is_empty() {
            let names: HashSet<String> = self.book.logs.keys().map(|name| source(name)).collect();
            self.seen.retain(|source| names.contains(source));
        }
    }

    /// Takes note that what was read of a part is durable.
    pub(in super::super) fn landed(&mut self, flight: &Flight) {
        self.book.stamp = flight.stamp;
        let Some(log) = self.book.logs.get_mut(&flight.log) else {
            return;
        };
        match flight.mark {
            Some(mark) => {
                let mut parts = log.parts.iter_mut();
                if let Some(part) = parts.find(|part| part.id == flight.part) {
                    part.held = Some(mark);
                }
            }
            None => log.parts.retain(|part| part.id != flight.part),
        }
        if flight.is_clear {
            log.let_go(flight.stamp);
        }
    }

    /// Tells whether more listings may bring what the spool has.
    pub(in super::super) fn may_come(&self) -> bool {
        !self.seen.is_empty() && self.settled < SEARCHES
    }

    /// Waits no longer for what the spool has of logs that were read to their end, and returns those of which there is
    /// more to note. Everything that was read must be durable.
    pub(in super::super) fn give_up(&mut self) -> BTreeSet<PathBuf> {
        // A file that is renamed just now may be missing in a listing.
        let may_come = self.may_come();
        let mut more = BTreeSet::new();
        for (name, log) in &mut self.book.logs {
            let is_read = |part: &Part| {
                let is_found = !part.doubtful && !part.replaced && part.sought == 0;
                let is_left = part.path != *name || part.unlinked;
                // Of a file that is written to, what has no end was no message before, unless there is a pattern.
                let is_waiting = is_left || self.cutter.first.is_some();
                let has_more = match part.packing {
                    Packing::Plain => is_waiting && part.size > part.read.offset,
                    _ => !part.ended,
                };
                match part.lost {
                    Some(_) => part.ended,
                    None => is_found && !has_more && !self.failing.contains_key(&part.path),
                }
            };
            let is_at_end = log.parts.iter().all(is_read);
            let source = source(name);
            let is_unmet = self.seen.has(&source);
            if is_unmet {
                if !is_at_end || may_come {
                    continue;
                }
                self.seen.retain(|other| other != source);
            }
            // What was not met is not to be taken for lines to come by the next start either.
            if is_unmet || log.parts.iter().any(|part| part.held.is_some()) {
                log.let_go(self.stamp);
                more.insert(name.clone());
            }
        }
        more
    }

    /// Leaves away what the spool has already.
    pub(super) fn skip_seen(&mut self, portion: &mut Portion, bytes: u64) {
        if !self.seen.has(&portion.source) {
            return;
        }
        let messages = std::mem::take(&mut portion.messages);
        for piece in messages {
            let new = self.new_of(&portion.source, portion.bytes_of(&piece));
            match new {
                0 => portion.messages.push(piece),
                _ if new >= piece.length as usize => {}
                _ => {
                    let rest = portion.bytes_of(&piece)[new..].to_vec();
                    let length = (piece.original as usize).saturating_sub(new);
                    gather::add_message(portion, &rest, length);
                }
            }
        }
        self.reread += bytes;
        if self.reread > REREAD {
            self.seen = Seen::default();
        }
    }

    /// Returns where in a message that begins which the spool does not have: lines that are one message now may have
    /// been several, when not all of them were there yet.
    fn new_of(&mut self, source: &str, message: &[u8]) -> usize {
        let (mut new, mut at) = (0, 0);
        for line in message.split(|byte| *byte == b'\n') {
            at += line.len() + 1;
            let line = trimmed(line);
            if self.seen.remove(source, line) {
                new = at;
            } else if !line.is_empty() {
                return new;
            }
        }
        match new {
            0 => 0,
            _ => message.len(),
        }
    }

    /// Tells whether all was met again that the spool had beyond the notes.
    pub(in super::super) fn has_all(&self) -> bool {
        self.seen.is_empty()
    }
}
