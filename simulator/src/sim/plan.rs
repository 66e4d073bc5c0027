//! What a seed draws before it begins: which faults, how often, and when.
//!
//! Every seed draws its own mix, so that some faults meet each other undisturbed by the rest; some
//! draw none at all. Pure.

use super::{book::NODES, dice::Dice};

/// What is done to the world, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The station is killed after so many more steps, and is back after so long.
    CrashStation {
        /// Steps it still does.
        steps: u32,
        /// Milliseconds until it is back.
        away: u64,
    },
    /// An agent is killed after so many more steps, and is back after so long.
    CrashAgent {
        /// Which host.
        host: usize,
        /// Steps it still does.
        steps: u32,
        /// Milliseconds until it is back.
        away: u64,
        /// What else goes with it.
        with: Loss,
    },
    /// Frames to or from a host vanish; nobody is told.
    Cut {
        /// Which host.
        host: usize,
        /// Towards it.
        down: bool,
        /// From it.
        up: bool,
        /// For how long.
        lasts: u64,
    },
    /// The broker cannot be reached by a host, which knows.
    HostAway {
        /// Which host.
        host: usize,
        /// For how long.
        lasts: u64,
    },
    /// The broker cannot be reached by the station, which knows.
    StationAway {
        /// For how long.
        lasts: u64,
    },
    /// The broker is gone for everybody.
    BrokerAway {
        /// For how long.
        lasts: u64,
    },
    /// A host's wall clock jumps.
    HostClock {
        /// Which host.
        host: usize,
        /// By so many milliseconds.
        by: i64,
    },
    /// The station's wall clock jumps.
    StationClock {
        /// By so many milliseconds.
        by: i64,
    },
    /// A host's journal cannot be written.
    HostDisk {
        /// Which host.
        host: usize,
        /// For how long.
        lasts: u64,
    },
    /// The ledger cannot be written.
    StationDisk {
        /// For how long.
        lasts: u64,
    },
    /// An operator cancels a message.
    Cancel,
    /// An operator repeats a message.
    Retry {
        /// Whatever became of the old one.
        force: bool,
    },
}

/// What an agent's crash takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: its commands go on, and their wardens.
    Nothing,
    /// Its commands; their wardens see that.
    Commands,
    /// The wardens; the commands go on without.
    Wardens,
    /// Its commands and their wardens.
    Children,
    /// The host is started again: other boot, no command left.
    Boot,
    /// The host is made anew: the journal is gone too.
    Journal,
}

/// How a schedule is treated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Whether a second agent calls itself like the first one.
    pub rival: bool,
    /// When the faults end, in milliseconds.
    pub heal: u64,
    /// Whether everybody connects afresh then, or merely nothing is lost any more.
    pub reconnect: bool,
    /// Messages are submitted within this.
    pub submitting: u64,
    /// Frames lost, in a thousand.
    pub drop: u64,
    /// Frames doubled, in a thousand.
    pub double: u64,
    /// Frames that come seconds later, in a thousand.
    pub late: u64,
    /// Fastest and slowest way of a frame, in milliseconds.
    pub way: (u64, u64),
    /// Writes that fail, in a thousand, at the station and at the agents.
    pub write_error: (u64, u64),
    /// Frames the station takes together with others, in a thousand.
    pub batch: u64,
    /// Steps of an order that take a while, in a thousand.
    pub dawdle: u64,
    /// Time between two hellos.
    pub heartbeat: u64,
    /// How often the station looks at the time.
    pub tick: u64,
    /// Commands a node runs at once.
    pub permits: usize,
    /// Orders a node keeps waiting.
    pub queue: usize,
    /// Whether a node's policy refuses one of the domains until it is started again.
    pub refuses: bool,
    /// What is done, and when.
    pub blows: Vec<(u64, Blow)>,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(dice: &mut Dice) -> Self {
        let nodes = dice.pick(&[1, 1, 2, 2, 3, NODES]);
        let calm = dice.chance(80);
        let heal = dice.pick(&[3_000, 6_000, 12_000, 12_000, 25_000, 40_000]);
        let heal = if calm { 2_000 } else { heal };
        let mut plan = Self {
            nodes,
            rival: false,
            heal,
            reconnect: dice.chance(500),
            submitting: dice.between(100, heal * 2 / 3),
            drop: 0,
            double: 0,
            late: 0,
            way: (1, dice.pick(&[2, 10, 60, 400])),
            write_error: (0, 0),
            batch: dice.pick(&[0, 0, 100, 400]),
            dawdle: dice.pick(&[0, 100, 400]),
            heartbeat: dice.pick(&[2_000, 5_000, 10_000, 10_000]),
            tick: dice.pick(&[200, 500, 1_000]),
            permits: dice.pick(&[1, 4, 16, 16]),
            queue: dice.pick(&[2, 100, 100, 100]),
            refuses: false,
            blows: Vec::new(),
        };
        if dice.chance(400) {
            for _ in 0..dice.between(1, 3) {
                let at = dice.below(plan.heal);
                plan.blows.push((at, Blow::Cancel));
            }
        }
        if dice.chance(300) {
            let force = dice.chance(200);
            plan.blows
                .push((dice.below(plan.heal), Blow::Retry { force }));
        }
        if !calm {
            plan.spoil(dice);
        }
        plan
    }

    /// Returns when an operator asks for something last.
    pub fn last_call(&self) -> u64 {
        let calls = self.blows.iter().filter_map(|(at, blow)| match blow {
            Blow::Cancel | Blow::Retry { .. } => Some(*at),
            _ => None,
        });
        calls.max().unwrap_or(0)
    }

    fn spoil(&mut self, dice: &mut Dice) {
        self.drop = dice.pick(&[0, 0, 10, 50, 200, 400]);
        self.double = dice.pick(&[0, 0, 20, 100, 300]);
        self.late = dice.pick(&[0, 0, 20, 100]);
        self.write_error = (
            dice.pick(&[0, 0, 0, 10, 60]),
            dice.pick(&[0, 0, 0, 10, 60, 200]),
        );
        self.refuses = dice.chance(250);
        self.rival = dice.chance(40);
        self.station_blows(dice);
        let hosts = self.nodes + usize::from(self.rival);
        for host in 0..hosts {
            self.host_blows(host, dice);
        }
    }

    fn station_blows(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 0, 0, 1, 1, 2, 3]) {
            let blow = Blow::CrashStation {
                steps: steps(dice),
                away: dice.pick(&[10, 300, 2_000, 8_000]),
            };
            self.strike(blow, dice);
        }
        if dice.chance(200) {
            let lasts = self.span(dice);
            self.strike(Blow::StationAway { lasts }, dice);
        }
        if dice.chance(200) {
            let lasts = self.span(dice);
            self.strike(Blow::BrokerAway { lasts }, dice);
        }
        if dice.chance(120) {
            let lasts = self.span(dice);
            self.strike(Blow::StationDisk { lasts }, dice);
        }
        if dice.chance(120) {
            let by = jump(dice);
            self.strike(Blow::StationClock { by }, dice);
        }
    }

    fn host_blows(&mut self, host: usize, dice: &mut Dice) {
        for _ in 0..dice.pick(&[0, 0, 0, 1, 1, 2, 3]) {
            let with = match dice.below(100) {
                0..40 => Loss::Nothing,
                40..50 => Loss::Commands,
                50..60 => Loss::Wardens,
                60..75 => Loss::Children,
                75..92 => Loss::Boot,
                _ => Loss::Journal,
            };
            let blow = Blow::CrashAgent {
                host,
                steps: steps(dice),
                away: dice.pick(&[10, 300, 2_000, 8_000]),
                with,
            };
            self.strike(blow, dice);
        }
        if dice.chance(250) {
            let (down, up) = dice.pick(&[(true, true), (true, false), (false, true)]);
            let lasts = self.span(dice);
            let blow = Blow::Cut {
                host,
                down,
                up,
                lasts,
            };
            self.strike(blow, dice);
        }
        if dice.chance(200) {
            let lasts = self.span(dice);
            self.strike(Blow::HostAway { host, lasts }, dice);
        }
        if dice.chance(120) {
            let lasts = self.span(dice);
            self.strike(Blow::HostDisk { host, lasts }, dice);
        }
        if dice.chance(120) {
            let by = jump(dice);
            self.strike(Blow::HostClock { host, by }, dice);
        }
    }

    fn strike(&mut self, blow: Blow, dice: &mut Dice) {
        let at = dice.below(self.heal);
        self.blows.push((at, blow));
    }

    fn span(&self, dice: &mut Dice) -> u64 {
        dice.between(50, self.heal)
    }
}

/// How far a machine still gets before it is killed: often nowhere, sometimes into the next orders.
fn steps(dice: &mut Dice) -> u32 {
    let most = dice.pick(&[0, 3, 10, 40]);
    u32::try_from(dice.between(0, most)).unwrap_or(0)
}

/// How far a wall clock jumps, in milliseconds: a little, beyond what is trusted, or by hours.
fn jump(dice: &mut Dice) -> i64 {
    let by = dice.pick(&[2_000, 10_000, 45_000, 7_200_000]);
    if dice.chance(500) { by } else { -by }
}
