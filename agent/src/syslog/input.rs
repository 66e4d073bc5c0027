//! The inputs: sockets that programs of this node, or of others, send their logs to, and what can be read again: files
//! and the journal.
//!
//! An input listens, cuts what comes into messages, and hands them over in portions. It knows no rules and no spool.
//! Datagrams are taken whatever happens; all else is read only as fast as there is room.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use steward_protocol::logs::{Gap, Micros, Reason};
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Feed, now},
    spool::{Portion, writer::Gone},
};
use crate::config::syslog::{Input, Listen};

pub(crate) mod files;
mod gather;
mod journal;
mod place;
pub(crate) mod seen;
mod stream;
mod tls;
mod udp;
mod unixgram;

/// How often an input looks after what waits for nothing: what rules have suppressed, what the kernel has dropped.
const LOOK: Duration = Duration::from_secs(1);

/// How long what stands in the kernel's buffers is still read when the agent ends.
const LAST: Duration = Duration::from_secs(1);

/// Why an input does not work.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot listen.
    #[error("listen on {name}")]
    Listen {
        /// Where.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing can be received any more.
    #[error("receive logs on {name}")]
    Receive {
        /// Where.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file it needs to encrypt cannot be used.
    #[error("use {} for {name}: {problem}", .path.display())]
    Tls {
        /// Which input.
        name: String,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A journal cannot be read.
    #[error("read the journal for {name}: {problem}")]
    Journal {
        /// Which input.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// What reads journals does not start.
    #[error("start journalctl, which comes with systemd and reads the journal for {name}")]
    Journalctl {
        /// Which input.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The writer has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// What an input works with.
#[derive(Debug, Clone)]
pub struct Work {
    /// How it is configured.
    pub input: Input,
    /// Where its messages go.
    pub feed: Feed,
    /// Told when it is to end.
    pub stop: CancellationToken,
    /// The directory of logs, where an input may keep how far it has come.
    pub dir: PathBuf,
    /// What the spool has of it beyond what it remembers.
    pub(crate) seen: seen::ForFirst,
    /// Told when it remembers that.
    pub(crate) noted: CancellationToken,
}

impl Work {
    fn listening(&self, source: io::Error) -> InputError {
        InputError::Listen {
            name: self.input.name.clone(),
            source,
        }
    }

    fn receiving(&self, source: io::Error) -> InputError {
        InputError::Receive {
            name: self.input.name.clone(),
            source,
        }
    }
}

/// Runs an input until it is told to end; then it takes what is there already, and no more.
///
/// # Errors
///
/// Says why it does not work; it may be tried again.
pub async fn run(work: Work) -> Result<(), InputError> {
    match work.input.listen.clone() {
        Listen::Udp(address) => udp::run(work, address).await,
        Listen::Unixgram(path) => unixgram::run(work, path).await,
        Listen::Tcp(address) => stream::tcp(work, address).await,
        Listen::Tls(address, files) => stream::tls(work, address, files).await,
        Listen::Unix(path) => stream::unix(work, path).await,
        Listen::Journal(directory) => journal::run(work, directory).await,
        Listen::Files(files) => files::run(work, files).await,
    }
}

/// Says that what was in memory and in the kernel's buffers of a socket may be lost.
pub(crate) fn cut_off(name: &str, since: Micros) -> Portion {
    let at = now();
    let gap = Gap::new(None, Reason::UncleanStart).between(since.min(at), at);
    told(name, gap)
}

/// Says that what was in the kernel's buffers of a socket that failed is lost.
pub(crate) fn broken(name: &str) -> Portion {
    let gap = Gap::new(None, Reason::Other).with_detail("the socket failed".to_owned());
    told(name, gap)
}

/// Says that senders were turned away, who may have said something by then.
fn turned_away(name: &str, connections: u64) -> Portion {
    let gap = Gap::new(None, Reason::Other);
    told(
        name,
        gap.with_detail(format!("{connections} connections were turned away")),
    )
}

fn told(name: &str, gap: Gap) -> Portion {
    let mut portion = Portion::new(name.into(), now());
    portion.gaps.push(gap);
    portion
}

/// Returns the name of a source: the input's, and the peer's address if it is not on this machine. Its port says
/// nothing to anybody, and would make every connection a source of its own.
fn source(input: &str, peer: Option<SocketAddr>) -> Arc<str> {
    match peer.map(|peer| peer.ip().to_canonical()) {
        Some(address) if !address.is_loopback() => format!("{input}#{address}").into(),
        Some(_) | None => input.into(),
    }
}
