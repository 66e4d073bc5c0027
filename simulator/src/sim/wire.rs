//! The way between station and agents: what travels, and what happens to it on the way.

use std::rc::Rc;

use steward_protocol::{Ack, Cancel, Confirm, FaultEvent, Hello, Origin, Reign, Send, Welcome};

use super::{
    book::Page,
    faults::Kind,
    plan::Plan,
    world::{Happening, World},
};

/// A frame that is late arrives at most so many milliseconds after its time.
const LATEST: u64 = 30_000;

/// Something a station says to a node.
#[derive(Debug, Clone)]
pub enum Down {
    /// An order.
    Order {
        /// This transmission.
        send: Send,
        /// The message it is of; the bytes are its order for the node.
        page: Rc<Page>,
        /// Whether a bug gave it another id.
        renamed: bool,
    },
    /// A cancellation.
    Cancel(Send, Cancel),
    /// The answer to a hello.
    Welcome(Reign, Welcome),
    /// What the node may forget.
    Confirm(Reign, Confirm),
}

/// Something an agent says to its station.
#[derive(Debug, Clone)]
pub enum Up {
    /// It introduces itself.
    Hello(Box<Hello>),
    /// How an order stands.
    Ack(Box<Ack>),
    /// A fault.
    Fault(Box<FaultEvent>),
}

/// A frame on its way up, with its header.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Which node it says it comes from.
    pub node: usize,
    /// The header.
    pub origin: Origin,
    /// The body.
    pub up: Up,
}

/// How one host stands to the broker, and what is done to its frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Whether it is connected, and knows so.
    pub connected: bool,
    /// Which connection this is.
    pub generation: u64,
    /// Frames to it vanish until then.
    pub deaf_until: u64,
    /// Frames from it vanish until then.
    pub mute_until: u64,
}

/// The hosts that listen for a node: hardly ever more than one, never more than there are.
#[derive(Debug, Default)]
struct Few {
    hosts: [usize; super::book::NODES + 1],
    length: usize,
}

impl Few {
    fn push(&mut self, host: usize) {
        self.hosts[self.length] = host;
        self.length += 1;
    }

    fn pop(&mut self) -> Option<usize> {
        self.length = self.length.checked_sub(1)?;
        Some(self.hosts[self.length])
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// What becomes of one copy of a frame: when it arrives, if it does.
enum Fate {
    Lost,
    Arrives(u64),
}

impl World<'_> {
    /// The station says something to a node, by the broker.
    pub(super) fn publish(&mut self, node: usize, frame: Down) {
        if !self.station.connected {
            self.count(Kind::NotConnected);
            return;
        }
        let mut listens = false;
        let mut listeners = Few::default();
        for host in 0..self.hosts.len() {
            if self.hosts[host].node != node {
                continue;
            }
            // The broker knows who has subscribed, not who is cut off.
            let listening = self.hosts[host].line.connected && self.hosts[host].agent.is_some();
            listens |= listening;
            if !listening {
                continue;
            }
            if self.hosts[host].line.deaf_until > self.now {
                self.count(Kind::Cut);
                continue;
            }
            listeners.push(host);
        }
        if !listens {
            return self.nobody_listens(node);
        }
        let mut frame = Some(frame);
        while let Some(host) = listeners.pop() {
            let this = match listeners.is_empty() {
                true => frame.take(),
                false => frame.clone(),
            };
            if let Some(this) = this {
                self.send_copies(this, |frame| Happening::Down(host, Box::new(frame)));
            }
        }
    }

    fn nobody_listens(&mut self, node: usize) {
        if let Some(reign) = &self.station.reign {
            let (sent, life) = (self.now - reign.born, reign.life);
            self.count(Kind::NoResponders);
            let (fastest, slowest) = self.plan.way;
            let at = self.now + self.dice.between(fastest, slowest);
            let happening = Happening::NoResponders { node, sent, life };
            self.queue.plan(at, happening);
        }
    }

    /// An agent says something to its station, by the broker.
    pub(super) fn speak(&mut self, host: usize, uplink: Uplink) {
        let line = self.hosts[host].line;
        if !line.connected {
            return;
        }
        if line.mute_until > self.now {
            self.count(Kind::Cut);
            return;
        }
        self.send_copies(uplink, |uplink| Happening::Up(Box::new(uplink)));
    }

    /// Sends a frame on its way, twice if the plan doubles it.
    fn send_copies<T: Clone>(&mut self, frame: T, arrival: impl Fn(T) -> Happening) {
        if self.faulty() && self.dice.chance(self.plan.double) {
            self.count(Kind::Double);
            self.send_copy(frame.clone(), &arrival);
        }
        self.send_copy(frame, &arrival);
    }

    fn send_copy<T>(&mut self, frame: T, arrival: impl Fn(T) -> Happening) {
        match self.fate() {
            Fate::Lost => self.count(Kind::Drop),
            Fate::Arrives(at) => self.queue.plan(at, arrival(frame)),
        }
    }

    fn fate(&mut self) -> Fate {
        let Plan {
            drop,
            late,
            way: (fastest, slowest),
            ..
        } = self.plan;
        let at = self.now + self.dice.between(fastest, slowest);
        if !self.faulty() {
            return Fate::Arrives(at);
        }
        if self.dice.chance(drop) {
            return Fate::Lost;
        }
        if self.dice.chance(late) {
            self.count(Kind::Late);
            let at = at + self.dice.between(500, LATEST);
            self.last_late = self.last_late.max(at);
            return Fate::Arrives(at);
        }
        Fate::Arrives(at)
    }
}
