//! What an agent's shell does when time passes: hellos, and saying again what is not confirmed.

use std::{collections::BTreeMap, time::Duration};

use steward_agent::{
    dispatch::Event,
    journal::{Answer, Ask},
};
use steward_protocol::{Hello, retry::Backoff};

use super::{
    book::{DOMAINS, domain_of, millis},
    host::{Agent, LOOK, NEVER, Trouble},
    wire::Up,
    world::{Happening, Killed, World},
};

/// Until the station has answered, hello is said again after these; as in the real agent.
const UNANSWERED: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(3600),
};

/// Wait after the journal could not be used.
const STORAGE_PAUSE: u64 = 5_000;

/// Rounds of answers said at once; every one is bounded by the journal.
const ROUNDS: u32 = 100;

impl World<'_> {
    pub(super) fn wake(&mut self, host: usize, life: u32) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|it| it.life == life) else {
            return;
        };
        agent.wake_at = NEVER;
        self.guard(host, Self::look_around);
    }

    /// Does whatever is due.
    pub(super) fn look_around(&mut self, host: usize) -> Result<(), Killed> {
        if self.hello_due(host).is_some_and(|at| at <= self.now) {
            self.say_hello(host)?;
        }
        self.give_up_waiting(host)?;
        let Some(agent) = &self.hosts[host].agent else {
            return Ok(());
        };
        if agent.look_at <= self.now {
            self.round(host)?;
        }
        let now = Duration::from_millis(self.now);
        for domain in 0..DOMAINS {
            let Some(dispatch) = self.dispatch(host, domain) else {
                continue;
            };
            if dispatch.quit(now).is_some() {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.dispatches[domain] = None;
                }
            } else if dispatch.wake_at().is_some_and(|at| at <= now) {
                self.tell(host, domain, Event::Time)?;
            }
        }
        Ok(())
    }

    /// Offers orders whose welcome has not come in time; they are counted and not answered.
    pub(super) fn give_up_waiting(&mut self, host: usize) -> Result<(), Killed> {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        while agent.early.first().is_some_and(|(until, _)| *until <= now) {
            agent.early.remove(0);
        }
        Ok(())
    }

    /// Says again what the station has not confirmed.
    pub(super) fn round(&mut self, host: usize) -> Result<(), Killed> {
        for _ in 0..ROUNDS {
            let generation = self.hosts[host].line.generation;
            let connected = self.hosts[host].line.connected;
            let dice = self.dice.roll();
            let Some(agent) = &mut self.hosts[host].agent else {
                return Ok(());
            };
            let footing = agent.footing;
            if !connected || footing.welcomed.is_none() || footing.generation != generation {
                agent.look_at = NEVER;
                return Ok(());
            }
            let all = agent.served.replace(footing) != Some(footing);
            let due = match self.ask(host, Ask::Due { all, dice }) {
                Ok(Answer::Due(due)) => due,
                Ok(_) | Err(Trouble::Storage) => {
                    if let Some(agent) = &mut self.hosts[host].agent {
                        agent.look_at = self.now + STORAGE_PAUSE;
                    }
                    return Ok(());
                }
                Err(Trouble::Killed) => return Err(Killed),
            };
            let now_ms = self.moment(host).boot_ms;
            let more = due.next_ms.is_some_and(|next| next <= now_ms) && !due.answers.is_empty();
            let pending = due.next_ms.is_some();
            for ticket in due.answers {
                self.say_ack(host, ticket)?;
            }
            for rank in due.events {
                if let Some(event) = self.hosts[host].disk.event(rank) {
                    self.say(host, Up::Fault(Box::new(event)))?;
                }
            }
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.look_at = if pending { self.now + LOOK } else { NEVER };
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn hello_due(&self, host: usize) -> Option<u64> {
        let machine = &self.hosts[host];
        let agent = machine.agent.as_ref()?;
        if !machine.line.connected || self.quiet() {
            return None;
        }
        let generation = machine.line.generation;
        let Some((_, last)) = agent.greeted.filter(|(on, _)| *on == generation) else {
            return Some(0);
        };
        Some(last + self.pause(agent, generation))
    }

    pub(super) fn pause(&self, agent: &Agent, generation: u64) -> u64 {
        let answered = agent.footing.welcomed.is_some() && agent.footing.generation == generation;
        if answered {
            self.plan.heartbeat
        } else {
            let wait = UNANSWERED.bound(agent.unanswered);
            millis(wait).min(self.plan.heartbeat)
        }
    }

    pub(super) fn say_hello(&mut self, host: usize) -> Result<(), Killed> {
        let Ok(Answer::Snapshot(snapshot)) = self.ask(host, Ask::Snapshot) else {
            return Ok(());
        };
        let moment = self.moment(host);
        let (heartbeat, node) = (self.plan.heartbeat, self.hosts[host].node);
        let generation = self.hosts[host].line.generation;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let answered = agent.footing.welcomed.is_some() && agent.footing.generation == generation;
        let fresh = answered || agent.greeted.is_none_or(|(on, _)| on != generation);
        agent.unanswered = if fresh { 0 } else { agent.unanswered + 1 };
        agent.greeted = Some((generation, self.now));
        let lanes = snapshot.lanes.into_iter();
        let texts = &self.book.subject_texts[node];
        let hello = Hello {
            counter: snapshot.counter,
            boot_id: moment.boot_id.to_string(),
            version: String::new(),
            at: moment.wall,
            started_at: agent.started_at,
            interval_ms: heartbeat,
            round_trip_us: None,
            labels: BTreeMap::new(),
            lanes: lanes
                .map(|(subject, seq)| (texts[domain_of(&subject.domain)].clone(), seq))
                .collect(),
            open: snapshot.open,
            unconfirmed: snapshot.unconfirmed,
            processes: Vec::new(),
            counters: BTreeMap::new(),
            leaving: false,
            facts: None,
            budgets: BTreeMap::new(),
        };
        self.say(host, Up::Hello(Box::new(hello)))
    }

    /// Plans the next look at the time.
    pub(super) fn arm(&mut self, host: usize) {
        let hello = self.hello_due(host).unwrap_or(NEVER);
        let Some(agent) = &self.hosts[host].agent else {
            return;
        };
        let early = agent.early.first().map_or(NEVER, |(until, _)| *until);
        let wakes = agent.dispatches.iter().flatten();
        let wakes = wakes.filter_map(|dispatch| dispatch.wake_at().map(millis));
        let look = if self.quiet() { NEVER } else { agent.look_at };
        let at = wakes.fold(hello.min(early).min(look), u64::min);
        if at == NEVER {
            return;
        }
        let (at, life) = (at.max(self.now), agent.life);
        if at < agent.wake_at {
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.wake_at = at;
            }
            self.queue.plan(at, Happening::Wake(host, life));
        }
    }
}
