//! Wardens: the small process that every command runs under, which outlives its agent, holds the
//! timeout, and writes down durably how the command ended.
//!
//! Knows nothing of orders and answers. What its command really did is the truth's business.

use steward_agent::journal::{ChildMark, OpenOrder, Started};

use super::{
    faults::Kind,
    plan::Loss,
    truth::{Child, End},
    world::{Happening, Who, World},
};

/// Wait between two tries to write down how a command ended, in milliseconds.
const RETRY: u64 = 500;

/// Why a warden ended its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Its time was up.
    TimedOut,
    /// The agent told it to.
    Told,
}

/// What a warden has written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) end: End,
    pub(super) stopped: Option<Stopped>,
}

/// The warden of one start of one command; it has the command's number.
#[derive(Debug, Clone)]
pub struct Warden {
    /// Where it finds its directory: on this host, by the message and which start of it this is.
    place: (usize, u64, u32),
    alive: bool,
    stopped: Option<Stopped>,
    written: Option<Written>,
}

impl World<'_> {
    /// Starts a command under a warden. Returns the number of both.
    pub(super) fn start_warden(&mut self, child: Child, attempt: u32, timeout: u64) -> usize {
        let (node, ends) = (self.hosts[child.host].node, child.ends);
        let place = (child.host, child.pos, attempt);
        let child = self.truth.start(child, node, self.now);
        self.wardens.push(Warden {
            place,
            alive: true,
            stopped: None,
            written: None,
        });
        self.queue.plan(ends, Happening::ChildEnd(child));
        if ends > self.now + timeout {
            self.queue
                .plan(self.now + timeout, Happening::Deadline(child));
        }
        child
    }

    /// Returns how a command ended, once its warden has written that down.
    pub(super) fn written(&self, child: usize) -> Option<Written> {
        self.wardens[child].written
    }

    /// Tells whether a command's warden lives.
    pub(super) fn is_watched(&self, child: usize) -> bool {
        self.wardens[child].alive
    }

    /// Finds what an earlier start of the agent left of an order: a warden that lives, or its last word.
    pub(super) fn find_warden(
        &self,
        host: usize,
        order: &OpenOrder,
        started: &Started,
    ) -> Option<usize> {
        let pos = self.hosts[host]
            .agent
            .as_ref()?
            .journal
            .entry(order.ticket)?
            .pos;
        let place = (host, pos, order.starts);
        let of_place = |warden: &Warden| warden.place == place;
        let ended = |warden: &Warden| of_place(warden) && warden.written.is_some();
        let mut wardens = self.wardens.iter();
        if let Some(child) = wardens.position(ended) {
            return Some(child);
        }
        if started.boot_id != self.hosts[host].boot.0 {
            // Whoever has its number now is somebody else.
            return None;
        }
        match started.child {
            Some(ChildMark { pid, .. }) => usize::try_from(pid).ok(),
            // The agent was killed before it wrote down the number.
            None => self.wardens.iter().rposition(of_place),
        }
        .filter(|child| self.is_watched(*child))
    }

    /// Ends what is left of a command whose warden is gone.
    pub(super) fn clear_leftovers(&mut self, host: usize, pos: u64) {
        for child in self.truth.alive_on(host) {
            if self.truth.children[child].pos == pos && self.truth.end(child, End::Killed, self.now)
            {
                self.note(Who::Command(host), || {
                    format!("{pos} is ended: it was left without its warden")
                });
            }
        }
    }

    /// An agent tells a warden to end its command.
    pub(super) fn tell_to_stop(&mut self, child: usize) {
        self.stop_command(child, Stopped::Told, "as it is called off");
    }

    pub(super) fn deadline(&mut self, child: usize) {
        self.stop_command(child, Stopped::TimedOut, "at its timeout");
    }

    fn stop_command(&mut self, child: usize, why: Stopped, words: &str) {
        if !self.wardens[child].alive || !self.truth.end(child, End::Killed, self.now) {
            return;
        }
        let Child { host, pos, .. } = self.truth.children[child];
        self.note(Who::Command(host), || format!("{pos} is stopped, {words}"));
        self.wardens[child].stopped = Some(why);
        self.see_end(child);
    }

    pub(super) fn child_end(&mut self, child: usize) {
        let Child {
            host, pos, exit, ..
        } = self.truth.children[child];
        if !self.truth.end(child, End::Exit(exit), self.now) {
            return;
        }
        self.note(Who::Command(host), || format!("{pos} exits with {exit}"));
        self.see_end(child);
    }

    /// A warden sees that its command is over.
    fn see_end(&mut self, child: usize) {
        if !self.quiet() && self.dice.chance(self.plan.dawdle) {
            let at = self.now + self.dice.between(1, 60);
            self.queue.plan(at, Happening::LastWord(child));
        } else {
            self.write_end(child);
        }
    }

    /// A warden writes down how its command ended, and ends.
    pub(super) fn write_end(&mut self, child: usize) {
        let host = self.truth.children[child].host;
        if !self.wardens[child].alive {
            return;
        }
        let full = self.now < self.hosts[host].full_until;
        if full || (self.faulty() && self.dice.chance(self.plan.write_error.1)) {
            self.count(Kind::WardenError);
            let at = self.now + RETRY;
            self.queue.plan(at, Happening::LastWord(child));
            return;
        }
        let run = self.truth.children[child].run;
        let Some((_, end)) = self.truth.runs[run].end else {
            return;
        };
        let warden = &mut self.wardens[child];
        warden.alive = false;
        warden.written = Some(Written {
            end,
            stopped: warden.stopped,
        });
        self.look_after(child);
    }

    /// Takes from a host what goes with its agent.
    pub(super) fn take_along(&mut self, host: usize, with: Loss) {
        let (commands, wardens) = match with {
            Loss::Nothing => (false, false),
            Loss::Commands => (true, false),
            Loss::Wardens => (false, true),
            Loss::Children | Loss::Boot | Loss::Journal => (true, true),
        };
        let of_host = |(child, warden): (usize, &Warden)| (warden.place.0 == host).then_some(child);
        let children: Vec<usize> = self
            .wardens
            .iter()
            .enumerate()
            .filter_map(of_host)
            .collect();
        for child in children {
            self.wardens[child].alive &= !wardens;
            if with == Loss::Journal {
                // The directories are where the journal is.
                self.wardens[child].written = None;
            }
            if commands && self.truth.end(child, End::Killed, self.now) {
                self.count(Kind::ChildKilled);
                if self.wardens[child].alive {
                    self.see_end(child);
                }
            }
        }
    }
}
