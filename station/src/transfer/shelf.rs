//! Where what is received stands: one directory per message and node, with the bytes, the run they
//! are of, and, once all of it is here, the record that says so. Blocks; callers see to that.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use steward_files::{Sink, Spot, remove, sync_directory};
use steward_protocol::{MessageId, NodeName, transfer::Whole};

/// The directories of outputs and of files on their way, in the state directory.
pub const OUTPUTS: &str = "outputs";
/// See [`OUTPUTS`].
pub const INCOMING: &str = "incoming";

const BYTES: &str = "bytes";
const RUN: &str = "run";
const END: &str = "end.json";
const END_NEW: &str = "end.new";

/// Only the station's user sees what nodes send.
const PRIVATE: u32 = 0o600;

/// What a complete transfer came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which run of the order it is of.
    pub run: u32,
    /// Its length and digest, and what became of the command.
    pub whole: Whole,
    /// Where the file was put, below `results/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<String>,
}

/// The place of one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// Names the place of an output. Nothing is looked at.
    pub fn of_output(state_dir: &Path, id: MessageId, node: &NodeName) -> Self {
        Self::of(&state_dir.join(OUTPUTS), id, node)
    }

    /// Names the place of a file on its way.
    pub(super) fn of_file(state_dir: &Path, id: MessageId, node: &NodeName) -> Self {
        Self::of(&state_dir.join(INCOMING), id, node)
    }

    fn of(base: &Path, id: MessageId, node: &NodeName) -> Self {
        Self {
            dir: base.join(id.to_string()).join(node.as_str()),
        }
    }

    /// Returns the path of the bytes.
    pub fn bytes(&self) -> PathBuf {
        self.dir.join(BYTES)
    }

    /// Returns the record of a complete transfer.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.dir.join(END)).ok()?).ok()
    }

    /// Returns which run the bytes are of, if that is known.
    pub fn run(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join(RUN))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Opens the bytes, to go on where they end.
    pub(super) fn open(&self) -> io::Result<(Option<u32>, Sink)> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let run = self.run();
        let mut sink = Sink::open(&self.bytes())?;
        if run.is_none() {
            sink.reset()?;
        }
        sync_directory(&self.dir)?;
        Ok((run, sink))
    }

    /// Notes that what comes is of this run; what was there is of another.
    pub(super) fn begin(&self, run: u32, sink: &mut Sink) -> io::Result<()> {
        remove(&self.dir.join(END))?;
        sink.reset()?;
        let mut file = File::create(self.dir.join(RUN))?;
        write!(file, "{run}")?;
        file.sync_data()?;
        sync_directory(&self.dir)
    }

    /// Writes down that all of it is here. Durable when this returns.
    pub(super) fn finish(&self, record: &Record) -> io::Result<()> {
        let directory = File::open(&self.dir)?;
        let spot = Spot {
            directory: directory.as_fd(),
            name: OsStr::new(END),
            beside: OsStr::new(END_NEW),
        };
        spot.replace(&serde_json::to_vec(record)?, PRIVATE)
    }
}
