//! A disk in memory whose power can be taken away: what was not synced is then there, or not, or in part, bytes and
//! names alike; and which fails when it is told to.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc};

use crate::syslog::spool::disk::{Disk, Entry};

/// Chance that can be repeated (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// Directory, name and bytes of files.
pub(super) type Files = Vec<(String, String, Vec<u8>)>;

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, written) => {
            let end = at + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(written);
        }
        Change::Cut(length) => bytes.resize(*length, 0),
    }
}

type Names = BTreeMap<String, usize>;

/// What a change of names leaves, so that a rename is both or neither.
type Renaming = Vec<(String, Option<usize>)>;

#[derive(Debug, Clone, Default)]
struct Dir {
    now: Names,
    durable: Names,
    pending: Vec<Renaming>,
}

fn settle(names: &mut Names, renaming: &Renaming) {
    for (name, inode) in renaming {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    dirs: BTreeMap<String, Dir>,
    inodes: Vec<Inode>,
    /// What was asked of it that changes something.
    pub(super) changes: u64,
    /// The change with which the power goes.
    pub(super) dies_at: Option<u64>,
    /// The changes that fail, from the first to the one behind the last.
    pub(super) fails: Option<(u64, u64)>,
    /// The places of a file that cannot be read.
    pub(super) unreadable: Option<std::ops::Range<u64>>,
    /// Most bytes in all files, beyond which it is full.
    pub(super) capacity: Option<usize>,
    dead: bool,
    /// How often a sync failed while the power was there: what can be read is then not what is durable.
    pub(super) failed_syncs: u32,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Power(pub(super) Rc<RefCell<State>>);

impl Power {
    /// Takes the power away and gives it back.
    pub(super) fn crash(&self, dice: &mut Dice) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        for dir in state.dirs.values_mut() {
            for renaming in std::mem::take(&mut dir.pending) {
                if dice.below(2) == 0 {
                    settle(&mut dir.durable, &renaming);
                }
            }
            dir.now = dir.durable.clone();
        }
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match (dice.below(4), change) {
                    (0, _) => {}
                    (1, Change::Write(at, mut bytes)) => {
                        // Torn, the rest of it never written.
                        let kept = dice.below(bytes.len() as u64 + 1) as usize;
                        let zeros = dice.below(2) == 0;
                        if zeros {
                            bytes[kept..].fill(0);
                        } else {
                            bytes.truncate(kept);
                        }
                        apply(&mut inode.durable, &Change::Write(at, bytes));
                    }
                    (_, change) => apply(&mut inode.durable, &change),
                }
            }
            inode.now = inode.durable.clone();
        }
        state.dead = false;
        state.dies_at = None;
    }

    /// Ends the program but not the machine: nothing is lost that was written.
    pub(super) fn restart(&self) {
        let mut state = self.0.borrow_mut();
        state.dead = false;
        state.dies_at = None;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    /// Returns all files, with their bytes.
    pub(super) fn all(&self) -> Files {
        let state = self.0.borrow();
        let mut all = Vec::new();
        for (dir, names) in &state.dirs {
            for (name, inode) in &names.now {
                all.push((dir.clone(), name.clone(), state.inodes[*inode].now.clone()));
            }
        }
        all
    }

    /// Returns a disk with these files, all durable.
    pub(super) fn with(files: &[(String, String, Vec<u8>)]) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.0.borrow_mut();
            for (dir, name, bytes) in files {
                let inode = state.inodes.len();
                state.inodes.push(Inode {
                    now: bytes.clone(),
                    durable: bytes.clone(),
                    pending: Vec::new(),
                });
                let dir = state.dirs.entry(dir.clone()).or_default();
                dir.now.insert(name.clone(), inode);
                dir.durable.insert(name.clone(), inode);
            }
        }
        disk
    }

    fn change(&self, more: usize) -> io::Result<std::cell::RefMut<'_, State>> {
        let mut state = self.0.borrow_mut();
        let number = state.changes;
        state.changes += 1;
        if state.dies_at.is_some_and(|at| number >= at) {
            state.dead = true;
        }
        if state.dead {
            return Err(io::Error::other("the power is gone"));
        }
        if state
            .fails
            .is_some_and(|(from, to)| number >= from && number < to)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let used = || {
            let files = state.dirs.values().flat_map(|dir| dir.now.values());
            files
                .map(|inode| state.inodes[*inode].now.len())
                .sum::<usize>()
        };
        if more > 0
            && state
                .capacity
                .is_some_and(|capacity| used() + more > capacity)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(state)
    }
}

fn rename(state: &mut State, dir: &str, renaming: Renaming) -> io::Result<()> {
    let dir = state.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
    settle(&mut dir.now, &renaming);
    dir.pending.push(renaming);
    Ok(())
}

impl Disk for Power {
    type File = usize;

    fn dirs(&mut self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().dirs.keys().cloned().collect())
    }

    fn files(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        let state = self.0.borrow();
        let dir = state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        let entry = |(name, inode): (&String, &usize)| Entry {
            name: name.clone(),
            bytes: state.inodes[*inode].now.len() as u64,
        };
        Ok(dir.now.iter().map(entry).collect())
    }

    fn make_dir(&mut self, dir: &str) -> io::Result<()> {
        self.change(1)?.dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn create(&mut self, dir: &str, name: &str) -> io::Result<usize> {
        let mut state = self.change(1)?;
        let names = &state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?.now;
        if let Some(inode) = names.get(name).copied() {
            let inode_state = &mut state.inodes[inode];
            inode_state.now.clear();
            inode_state.pending.push(Change::Cut(0));
            return Ok(inode);
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        rename(&mut state, dir, vec![(name.to_owned(), Some(inode))])?;
        Ok(inode)
    }

    fn open(&mut self, dir: &str, name: &str) -> io::Result<usize> {
        let state = self.0.borrow();
        let dir = state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(*dir.now.get(name).ok_or(io::ErrorKind::NotFound)?)
    }

    fn write(&mut self, file: &mut usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        let mut state = match self.change(bytes.len()) {
            Ok(state) => state,
            Err(error) => {
                // Some of it may be there.
                let mut state = self.0.borrow_mut();
                let part = Change::Write(at, bytes[..bytes.len() / 2].to_vec());
                let inode = &mut state.inodes[*file];
                apply(&mut inode.now, &part);
                inode.pending.push(part);
                return Err(error);
            }
        };
        let inode = &mut state.inodes[*file];
        let change = Change::Write(at, bytes.to_vec());
        apply(&mut inode.now, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn read(&mut self, file: &mut usize, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.0.borrow();
        let end = at + bytes.len() as u64;
        if state
            .unreadable
            .as_ref()
            .is_some_and(|range| at < range.end && end > range.start)
        {
            return Err(io::Error::other("a bad sector"));
        }
        let there = &state.inodes[*file].now;
        let rest = there.get(at as usize..).unwrap_or_default();
        let found = rest.len().min(bytes.len());
        bytes[..found].copy_from_slice(&rest[..found]);
        Ok(found)
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        match self.change(0) {
            Ok(mut state) => {
                let inode = &mut state.inodes[*file];
                for change in std::mem::take(&mut inode.pending) {
                    apply(&mut inode.durable, &change);
                }
                Ok(())
            }
            Err(error) => {
                let mut state = self.0.borrow_mut();
                if !state.dead {
                    // What could not be written is clean from now on, and gone.
                    state.inodes[*file].pending.clear();
                    state.failed_syncs += 1;
                }
                Err(error)
            }
        }
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        let mut state = self.change(0)?;
        let dir = state.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        for renaming in std::mem::take(&mut dir.pending) {
            settle(&mut dir.durable, &renaming);
        }
        Ok(())
    }

    fn truncate(&mut self, file: &mut usize, bytes: u64) -> io::Result<()> {
        let mut state = self.change(0)?;
        let inode = &mut state.inodes[*file];
        let change = Change::Cut(bytes as usize);
        apply(&mut inode.now, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn rename(&mut self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change(0)?;
        let names = &state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?.now;
        let inode = *names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let renaming = vec![(from.to_owned(), None), (to.to_owned(), Some(inode))];
        rename(&mut state, dir, renaming)
    }

    fn remove(&mut self, dir: &str, name: &str) -> io::Result<()> {
        let mut state = self.change(0)?;
        rename(&mut state, dir, vec![(name.to_owned(), None)])
    }
}
