//! What is promised of logs, and whether it was kept: pure, from what was written, what is stored, and who was killed when.
//!
//! Nothing twice, nothing in another order, nothing altered. While only station or broker are killed, nothing is missing.
//! Where the agent is killed, of each stream only an end is missing, which was written less than [`AT_LEAST`] before or
//! stood in the kernel's buffers; of datagrams only what was sent then, or while nobody listened; of files nothing.
//! And where something is missing, a gap stands in its place, or, of datagrams that were refused, its number does.

use std::{collections::BTreeMap, time::Duration};

use super::{
    source::{Connection, Written},
    store::Stored,
};
use crate::lab::figures::Figures;

/// After so long a message that was written is durable: the commit interval of 50 ms, and what threads of a busy machine
/// take on top of that. What the disk takes is measured beside it.
pub(super) const AT_LEAST: Duration = Duration::from_millis(300);

/// Syncs a message may wait for: six domains are written one after another, by the commit that is at work and by its own.
const SYNCS: u32 = 12;

/// What a kill meant for those who log.
#[derive(Debug, Clone)]
pub(super) enum Life {
    /// Their agent went on.
    Unharmed,
    /// Their agent was killed; the bytes that stood in the kernel's buffers then, by the port of their sender.
    Killed(BTreeMap<u16, u64>),
}

/// One kill.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) at: Duration,
    /// How long the machine took, just before, for what takes no time when it is idle: a short pause and a sync.
    pub(super) slow: Duration,
    pub(super) life: Life,
    /// When all inputs were there again.
    pub(super) back: Duration,
}

impl Kill {
    fn unread(&self) -> Option<&BTreeMap<u16, u64>> {
        match &self.life {
            Life::Unharmed => None,
            Life::Killed(unread) => Some(unread),
        }
    }
}

/// Judges what is stored of one program.
pub(super) fn check(
    written: &Written,
    stored: &[Stored],
    kills: &[Kill],
    figures: &mut Figures,
) -> Vec<String> {
    let mut violations = Vec::new();
    let numbers = in_order(written, stored, &mut violations);
    let count = |numbers: usize| u64::try_from(numbers).unwrap_or(u64::MAX);
    figures.add("sent", "messages", written.next());
    figures.add("stored", written.name, count(numbers.len()));
    let missing = missing(written, &numbers);
    let lost: u64 = missing.iter().map(|(first, next)| next - first).sum();
    if lost > 0 {
        figures.add("missing", written.name, lost);
    }
    let mut unexplained = 0;
    let mut losses = Vec::new();
    for (first, next) in missing {
        let before = losses.len();
        let run = format!("{} {first} to {}", written.name, next - 1);
        if let Err(problem) = excused(written, (first, next), kills) {
            losses.push(format!(
                "lost: {run} were written, and are not stored: {problem}"
            ));
        }
        if !is_told(written.name, first, stored) {
            losses.push(format!(
                "lost without a word: {run} are missing, and no gap says so"
            ));
        }
        unexplained += if losses.len() > before {
            next - first
        } else {
            0
        };
    }
    // Datagrams wait for nobody: a disk that is busy for longer than they may wait costs some, and each is counted.
    let counted: u64 = stored.iter().filter_map(Stored::count_of_refused).sum();
    if written.is_stream || written.is_kept || unexplained > counted {
        violations.extend(losses);
    } else if counted > 0 {
        figures.add("counted by the node", written.name, counted);
    }
    let is_cut_off = kills.iter().any(|kill| kill.unread().is_some());
    for one in stored {
        match one {
            Stored::Gap(reason, _) if reason == "unclean_start" && is_cut_off => {}
            Stored::Gap(..)
                if !written.is_stream && one.count_of_refused().is_some() && counted <= lost => {}
            Stored::Gap(reason, _) => violations.push(format!(
                "in {} something is said to be missing for no reason: {reason}",
                written.domain
            )),
            Stored::Strange(text) => violations.push(format!(
                "altered: nobody has written {text:?} to {}",
                written.domain
            )),
            Stored::Message(..) => {}
        }
    }
    violations
}

/// Returns the numbers that are stored, of each the first time.
fn in_order(written: &Written, stored: &[Stored], violations: &mut Vec<String>) -> Vec<u64> {
    let mut numbers: Vec<u64> = Vec::new();
    for one in stored {
        let Stored::Message(name, number) = one else {
            continue;
        };
        if name != written.name {
            continue;
        }
        match numbers.last() {
            Some(last) if number == last || numbers.binary_search(number).is_ok() => {
                violations.push(format!("twice: {name} {number} is stored again"));
            }
            Some(last) if number < last => {
                violations.push(format!(
                    "out of order: {name} {number} stands behind {last}"
                ));
            }
            Some(_) | None => numbers.push(*number),
        }
    }
    numbers
}

/// Returns the runs of numbers that were written and are not there. A run ends with its connection.
fn missing(written: &Written, numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut missing: Vec<(u64, u64)> = Vec::new();
    for connection in &written.connections {
        let mut from = connection.first;
        let first = numbers.partition_point(|number| *number < connection.first);
        let there = numbers[first..].iter().copied();
        for number in there.take_while(|number| *number < connection.next()) {
            if number > from {
                missing.push((from, number));
            }
            from = number + 1;
        }
        if from < connection.next() {
            missing.push((from, connection.next()));
        }
    }
    missing
}

/// Says why a run of numbers may not be missing.
fn excused(written: &Written, (first, next): (u64, u64), kills: &[Kill]) -> Result<(), String> {
    let of = written
        .connections
        .iter()
        .find(|connection| (connection.first..connection.next()).contains(&first));
    let Some(connection) = of else {
        return Err("nobody wrote them".to_owned());
    };
    if written.is_kept {
        return Err("they stood in a file".to_owned());
    }
    let Some(at) = written_at(connection, first) else {
        return Err("nobody knows when they were written".to_owned());
    };
    if written.is_stream && next < connection.next() {
        return Err("what was written behind them over the same connection is stored".to_owned());
    }
    let least = |kill: &Kill| AT_LEAST + SYNCS * kill.slow;
    let is_young = |at: Duration, kill: &Kill| at + least(kill) >= kill.at;
    let is_near = |at: Duration| {
        kills.iter().any(|kill| match kill.unread() {
            None => false,
            // What was written to a connection whose agent had died by then ends it.
            Some(_) if written.is_stream => is_young(at, kill) && connection_saw(connection, kill),
            Some(_) => is_young(at, kill) && at <= kill.back + AT_LEAST,
        })
    };
    // Datagrams of a run may be of several kills.
    let last = if written.is_stream { first + 1 } else { next };
    let mut times = (first..last).map(|number| written_at(connection, number));
    if times.all(|at| at.is_some_and(is_near)) {
        return Ok(());
    }
    let in_kernel = |kill: &Kill| {
        let unread = kill.unread()?.get(&connection.port?)?;
        Some(at <= kill.at && bytes_from(connection, first, kill.at) <= *unread)
    };
    if kills.iter().any(|kill| in_kernel(kill) == Some(true)) {
        return Ok(());
    }
    let before = kills
        .iter()
        .filter(|kill| kill.unread().is_some() && kill.at >= at)
        .map(|kill| kill.at.saturating_sub(at))
        .min();
    Err(match before {
        Some(before) => format!("they were written {before:?} before the agent was killed"),
        None => "the agent was not killed after they were written".to_owned(),
    })
}

/// Tells whether a kill fell into the life of a connection: it was open before, and nothing was written to it much later.
fn connection_saw(connection: &Connection, kill: &Kill) -> bool {
    connection
        .writes
        .last()
        .is_some_and(|last| last.at <= kill.back.max(kill.at) + AT_LEAST)
}

fn written_at(connection: &Connection, number: u64) -> Option<Duration> {
    let write = connection.writes.iter().find(|write| write.next > number)?;
    Some(write.at)
}

/// Returns how many bytes were written until then, from a message on; of its burst, all.
fn bytes_from(connection: &Connection, number: u64, until: Duration) -> u64 {
    let by = |is_before: &dyn Fn(&&super::source::Wrote) -> bool| {
        let last = connection.writes.iter().take_while(is_before).last();
        last.map_or(0, |write| write.bytes)
    };
    by(&|write| write.at <= until).saturating_sub(by(&|write| write.next <= number))
}

/// Tells whether a gap stands between the message before a number and the one behind it.
fn is_told(name: &str, number: u64, stored: &[Stored]) -> bool {
    let mut told = false;
    for one in stored {
        match one {
            Stored::Gap(..) => told = true,
            Stored::Message(of, at) if of == name && *at < number => told = false,
            Stored::Message(of, _) if of == name => return told,
            Stored::Message(..) | Stored::Strange(_) => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::{super::source::Wrote, *};

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten messages a second over one connection, and ten over another from the fourth second on.
    fn stream() -> Written {
        let connection = |first: u64, from: u32| Connection {
            first,
            port: Some(1000),
            writes: (0..10)
                .map(|number| Wrote {
                    at: SECOND * from + SECOND / 10 * number,
                    next: first + u64::from(number) + 1,
                    bytes: 100 * (u64::from(number) + 1),
                })
                .collect(),
        };
        Written {
            name: "lines",
            domain: "tcp",
            is_stream: true,
            is_kept: false,
            connections: vec![connection(0, 1), connection(10, 4)],
        }
    }

    fn kill(at: Duration, unread: u64) -> Kill {
        Kill {
            at,
            slow: Duration::ZERO,
            life: Life::Killed(BTreeMap::from([(1000, unread)])),
            back: at + SECOND,
        }
    }

    fn message(number: u64) -> Stored {
        Stored::Message("lines".to_owned(), number)
    }

    fn gap() -> Stored {
        Stored::Gap("unclean_start".to_owned(), None)
    }

    fn found(stored: &[Stored], kills: &[Kill]) -> String {
        let found = check(&stream(), stored, kills, &mut Figures::default());
        let word = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        found.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn with(ranges: &[std::ops::Range<u64>]) -> Vec<Stored> {
        let mut stored = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            if index > 0 {
                stored.push(gap());
            }
            stored.extend(range.clone().map(message));
        }
        stored
    }

    fn whole() -> Vec<Stored> {
        (0..20).map(message).collect()
    }

    #[test]
    fn only_what_was_young_or_in_the_kernel_may_be_missing_and_only_with_a_gap() {
        let late = kill(SECOND * 2, 0);
        let station = Kill {
            life: Life::Unharmed,
            ..late.clone()
        };
        let rows = [
            (whole(), None, ""),
            (with(&[0..8, 10..20]), Some(&late), ""),
            (with(&[0..6, 10..20]), Some(&late), "lost"),
            (
                with(&[0..8, 10..20]),
                Some(&station),
                "lost, in tcp something is said to be missing for no reason",
            ),
            (with(&[0..8, 9..20]), Some(&late), "lost"),
            (
                with(&[0..10, 10..19]),
                Some(&late),
                "lost, lost without a word",
            ),
        ];
        for (stored, kill, expected) in rows {
            let kills: Vec<Kill> = kill.cloned().into_iter().collect();
            assert_eq!(found(&stored, &kills), expected, "{stored:?} {kills:?}");
        }
        let full = kill(SECOND * 2, 450);
        assert_eq!(found(&with(&[0..6, 10..20]), &[full]), "");
        let mut silent = with(&[0..8, 10..20]);
        silent.retain(|one| *one != gap());
        assert_eq!(
            found(&silent, std::slice::from_ref(&late)),
            "lost without a word"
        );
        let file = Written {
            is_stream: false,
            is_kept: true,
            ..stream()
        };
        for (stored, problems) in [(whole(), 0), (with(&[0..8, 10..20]), 1)] {
            let found = check(
                &file,
                &stored,
                std::slice::from_ref(&late),
                &mut Figures::default(),
            );
            assert_eq!(found.len(), problems, "{found:?}");
        }
    }

    #[test]
    fn datagrams_of_one_run_may_be_missing_because_of_several_kills() {
        let datagrams = Written {
            is_stream: false,
            ..stream()
        };
        let kill_for_a_moment = |millis| {
            let at = Duration::from_millis(millis);
            Kill {
                back: at + Duration::from_millis(50),
                ..kill(at, 0)
            }
        };
        let kills = [1150, 1750].map(kill_for_a_moment);
        let stored = with(&[0..1, 8..20]);
        let found = |kills: &[Kill]| {
            let found = check(&datagrams, &stored, kills, &mut Figures::default());
            found.len()
        };
        assert_eq!(found(&kills), 0);
        assert_eq!(found(&kills[..1]), 1);
        assert_eq!(found(&kills[1..]), 1);
    }

    #[test]
    fn what_is_twice_out_of_order_or_altered_is_named() {
        let mut twice = whole();
        twice.insert(5, message(3));
        assert_eq!(found(&twice, &[]), "twice");
        let mut swapped = whole();
        swapped.swap(5, 6);
        assert_eq!(
            found(&swapped, &[]),
            "out of order, lost, lost without a word"
        );
        let mut altered = whole();
        altered.push(Stored::Strange("lin".to_owned()));
        assert_eq!(found(&altered, &[]), "altered");
    }
}
