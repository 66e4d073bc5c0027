//! What really ran: kept by the simulated commands themselves, never read from anybody's records.

use super::dice::Dice;

/// How a command came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exit(i32),
    /// Killed.
    Killed,
}

/// One start of one command.
#[derive(Debug, Clone)]
pub struct Run {
    /// The message it came with, by place.
    pub pos: u64,
    /// On which node.
    pub node: usize,
    /// When, in milliseconds.
    pub started: u64,
    /// When and how it ended, once it has.
    pub end: Option<(u64, End)>,
}

/// A command that runs, or ran, on a host.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its place in the log of runs.
    pub run: usize,
    /// On which host.
    pub host: usize,
    /// The order it was started for, by the number the agent gave it.
    pub pos: u64,
    /// How it will end if nobody stops it.
    pub exit: i32,
    /// And when.
    pub ends: u64,
}

/// The log every command writes its own start and end to.
#[derive(Debug, Default)]
pub struct Truth {
    /// In the order of their starts.
    pub runs: Vec<Run>,
    /// By number.
    pub children: Vec<Child>,
    /// How many commands run, by node.
    running: [u32; super::book::NODES],
    /// Milliseconds during which at least one command ran, by node, and since when one does.
    busy: [(u64, u64); super::book::NODES],
}

impl Truth {
    /// A command writes that it has started. Returns its number.
    pub fn start(&mut self, child: Child, node: usize, now: u64) -> usize {
        self.runs.push(Run {
            pos: child.pos,
            node,
            started: now,
            end: None,
        });
        if self.running[node] == 0 {
            self.busy[node].1 = now;
        }
        self.running[node] += 1;
        self.children.push(child);
        self.children.len() - 1
    }

    /// A command writes that it has ended, or is seen dead. Returns whether it was alive.
    pub fn end(&mut self, child: usize, how: End, now: u64) -> bool {
        let run = &mut self.runs[self.children[child].run];
        if run.end.is_some() {
            return false;
        }
        run.end = Some((now, how));
        let node = run.node;
        self.running[node] -= 1;
        if self.running[node] == 0 {
            let (time, since) = &mut self.busy[node];
            *time += now - *since;
        }
        true
    }

    /// Tells whether a command runs.
    pub fn is_alive(&self, child: usize) -> bool {
        self.runs[self.children[child].run].end.is_none()
    }

    /// Returns the commands of `host` that run.
    pub fn alive_on(&self, host: usize) -> Vec<usize> {
        let children = self.children.iter().enumerate();
        children
            .filter(|(number, child)| child.host == host && self.is_alive(*number))
            .map(|(number, _)| number)
            .collect()
    }

    /// Returns how long at least one command has run on `node` so far.
    pub fn busy(&self, node: usize, now: u64) -> u64 {
        let (time, since) = self.busy[node];
        if self.running[node] > 0 {
            time + (now - since)
        } else {
            time
        }
    }

    /// Returns the starts of one delivery.
    pub fn starts(&self, pos: u64, node: usize) -> impl Iterator<Item = &Run> {
        let runs = self.runs.iter();
        runs.filter(move |run| run.pos == pos && run.node == node)
    }
}

/// Returns how long a command takes and how it ends.
pub fn draw(dice: &mut Dice) -> (u64, i32) {
    let takes = match dice.below(100) {
        0..60 => dice.between(1, 100),
        60..90 => dice.between(100, 1_500),
        _ => dice.between(1_500, 5_000),
    };
    let exit = match dice.below(100) {
        0..75 => 0,
        75..88 => 3,
        _ => 1,
    };
    (takes, exit)
}
