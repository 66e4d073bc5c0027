//! A disk in memory whose power can be taken away, and that can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::logs::disk::{Disk, Found, Mode};

/// One file: its bytes, those that are durable, and what was written since.
#[derive(Debug, Default, Clone)]
struct Node {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    written: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
    syncs: usize,
    /// Changes until some fail, and how many then do.
    failing: Option<(u64, u64)>,
}

/// The disk; clones are the same one.
#[derive(Debug, Default, Clone)]
pub(super) struct Ram {
    state: Arc<Mutex<State>>,
}

impl Ram {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Returns how often files were synced.
    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// Lets `count` changes fail, after the next `after`.
    pub(super) fn fail_after(&self, after: u64, count: u64) {
        self.state().failing = Some((after, count));
    }

    /// Ends that.
    pub(super) fn heal(&self) {
        self.state().failing = None;
    }

    /// Takes the power away: what was not synced is there, or not, or half, as the dice say.
    pub(super) fn power_loss(&self, seed: u64) {
        let mut dice = seed | 1;
        let mut roll = move |sides: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            usize::try_from(dice % sides as u64).expect("small")
        };
        let mut state = self.state();
        for node in &mut state.nodes {
            let mut bytes = node.durable.clone();
            for (at, written) in std::mem::take(&mut node.written) {
                let kept = match roll(3) {
                    0 => continue,
                    1 => written.len(),
                    _ => roll(written.len() + 1),
                };
                let end = at + written.len();
                // The length may be there before the bytes are.
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..at + kept].copy_from_slice(&written[..kept]);
            }
            node.bytes.clone_from(&bytes);
            node.durable = bytes;
        }
        let mut names = state.durable_names.clone();
        for (name, node) in &state.names {
            if roll(2) == 0 {
                names.insert(name.clone(), *node);
            }
        }
        state.durable_names.clone_from(&names);
        state.names = names;
    }
}

fn change(state: &mut State) -> io::Result<()> {
    let Some((after, count)) = &mut state.failing else {
        return Ok(());
    };
    if *after > 0 {
        *after -= 1;
        return Ok(());
    }
    if *count == 0 {
        return Ok(());
    }
    *count -= 1;
    Err(io::Error::from(io::ErrorKind::StorageFull))
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for Ram {
    type File = usize;

    fn list(&self, dir: &str) -> io::Result<Vec<Found>> {
        let state = self.state();
        let below = match dir {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let paths = state
            .names
            .iter()
            .map(|(name, node)| (name, state.nodes[*node].bytes.len() as u64));
        for (path, bytes) in paths.chain(state.dirs.iter().map(|dir| (dir, 0))) {
            if let Some(rest) = path.strip_prefix(&below).filter(|rest| !rest.is_empty()) {
                let name = rest.split('/').next().expect("a name");
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(found
            .into_iter()
            .map(|(name, bytes)| Found { name, bytes })
            .collect())
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.dirs.contains(dir) {
            change(&mut state)?;
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn open(&self, path: &str, mode: Mode) -> io::Result<usize> {
        let mut state = self.state();
        match (state.names.get(path).copied(), mode) {
            (Some(node), _) => Ok(node),
            (None, Mode::Read) => Err(missing()),
            (None, Mode::Write) => {
                change(&mut state)?;
                state.nodes.push(Node::default());
                let node = state.nodes.len() - 1;
                state.names.insert(path.to_owned(), node);
                Ok(node)
            }
        }
    }

    fn bytes(&self, file: &usize) -> io::Result<u64> {
        Ok(self.state().nodes[*file].bytes.len() as u64)
    }

    fn read(&self, file: &usize, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
        let content = &state.nodes[*file].bytes;
        let at = usize::try_from(at).expect("small").min(content.len());
        let count = bytes.len().min(content.len() - at);
        bytes[..count].copy_from_slice(&content[at..at + count]);
        Ok(count)
    }

    fn write(&self, file: &usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let at = usize::try_from(at).expect("small");
        let failed = change(&mut state);
        // A write that fails may have written a part.
        let written = match failed {
            Ok(()) => bytes,
            Err(_) => &bytes[..bytes.len() / 2],
        };
        let node = &mut state.nodes[*file];
        put(&mut node.bytes, at, written);
        node.written.push((at, written.to_vec()));
        failed
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        let failed = change(&mut state);
        let node = &mut state.nodes[*file];
        // A sync that fails forgets what was to be written, and the next one says that all is well.
        let written = std::mem::take(&mut node.written);
        failed?;
        for (at, bytes) in written {
            put(&mut node.durable, at, &bytes);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let is_here = |name: &str| match name.rsplit_once('/') {
            Some((above, _)) => above == dir,
            None => dir.is_empty(),
        };
        let State {
            names,
            durable_names,
            ..
        } = &mut *state;
        durable_names.retain(|name, _| !is_here(name));
        let here = names.iter().filter(|(name, _)| is_here(name));
        durable_names.extend(here.map(|(name, node)| (name.clone(), *node)));
        Ok(())
    }

    fn truncate(&self, file: &usize, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let bytes = usize::try_from(bytes).expect("small");
        let node = &mut state.nodes[*file];
        node.bytes.resize(bytes, 0);
        node.durable.truncate(bytes);
        for (at, written) in &mut node.written {
            written.truncate(bytes.saturating_sub(*at));
        }
        node.written.retain(|(_, written)| !written.is_empty());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let node = state.names.remove(from).ok_or_else(missing)?;
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        state.names.remove(path);
        Ok(())
    }
}
