//! Takes an output apart as it comes: standard output to standard output, standard error to standard
//! error, and at the end the comparison with what the node says it was.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::{Result, bail};
use steward_protocol::{Digest, transfer::Extent};
use tokio::time::sleep;

use super::Stream;
use crate::{
    cli::{
        Exit, Session,
        client::{ClientError, Query},
        render::{emit, emit_bytes, notice, say_bytes, text},
    },
    view::OutputEnd,
};

/// Bytes of a record before its own.
const HEADER: usize = 5;

/// Wait before a station that went away is asked again, and how often in a row.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 60;

/// One stream of a command, as it is written here.
struct Sink {
    wanted: bool,
    terminal: bool,
    /// The beginning of a character whose end has not come.
    rest: Vec<u8>,
    bytes: u64,
    hasher: blake3::Hasher,
    write: fn(&[u8]) -> Result<()>,
}

impl Sink {
    fn new(wanted: bool, terminal: bool, write: fn(&[u8]) -> Result<()>) -> Self {
        Self {
            wanted,
            terminal,
            rest: Vec::new(),
            bytes: 0,
            hasher: blake3::Hasher::new(),
            write,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        if !self.wanted {
            return Ok(());
        }
        if !self.terminal {
            return (self.write)(bytes);
        }
        // What a node says must not act on a terminal.
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() - unfinished(&self.rest);
        let shown = text::escape_output(self.rest.get(..whole).unwrap_or_default());
        self.rest.drain(..whole);
        (self.write)(shown.as_bytes())
    }

    fn finish(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        (self.write)(text::escape_output(&rest).as_bytes())
    }

    /// Says what is missing or wrong. Returns whether all of it was here and right.
    fn compare(&self, name: &str, expected: Option<Extent>) -> bool {
        let Some(expected) = expected else {
            return true;
        };
        let found: Digest = self.hasher.finalize().into();
        if self.bytes < expected.bytes {
            let missing = text::plural(expected.bytes - self.bytes, "byte");
            notice(&format!(
                "{name}: {missing} of {} are missing: the node kept only the first part (its output_cap)",
                expected.bytes
            ));
            return false;
        }
        if found != expected.blake3 {
            notice(&format!(
                "{name}: the digest is {found}, and the node says {}: this is not what the command wrote",
                expected.blake3
            ));
            return false;
        }
        true
    }
}

/// Returns how many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let last: Vec<u8> = bytes.iter().rev().take(3).copied().collect();
    for (back, byte) in last.iter().enumerate() {
        let needs = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if back + 1 < needs { back + 1 } else { 0 };
    }
    0
}

/// How one answer ended.
enum Stretch {
    Over(OutputEnd),
    /// It was cut short; whether anything had come.
    Cut(bool),
}

/// Shows an output until it is over.
pub(super) async fn follow(session: &Session, path: &str, stream: Stream) -> Result<Exit> {
    let write_stderr = |bytes: &[u8]| {
        say_bytes(bytes);
        Ok(())
    };
    let mut sinks = [
        Sink::new(stream.has_stdout(), io::stdout().is_terminal(), emit_bytes),
        Sink::new(
            stream.has_stderr(),
            io::stderr().is_terminal(),
            write_stderr,
        ),
    ];
    let mut offset = 0;
    let mut tries = 0;
    let end = loop {
        match stretch(session, path, &mut offset, &mut sinks).await {
            Ok(Stretch::Over(end)) => break end,
            Ok(Stretch::Cut(came)) => tries = if came { 0 } else { tries + 1 },
            Err(error) => match error.downcast_ref::<ClientError>() {
                // A station that restarts goes on where it was.
                Some(away) if away.is_away() && offset > 0 && tries < TRIES => tries += 1,
                _ => return Err(error),
            },
        }
        if tries >= TRIES {
            bail!(
                "follow the output: the station ended it too often; it has come up to byte {offset}"
            );
        }
        sleep(AGAIN).await;
    };
    for sink in &mut sinks {
        sink.finish()?;
    }
    emit("")?;
    if let Some(reason) = end.failed {
        bail!("get all of the output: {}", text::escape(&reason));
    }
    let [stdout, stderr] = &sinks;
    let right = [
        stdout.compare("stdout", end.stdout),
        stderr.compare("stderr", end.stderr),
    ];
    Ok(if right == [true, true] {
        Exit::Success
    } else {
        Exit::Other
    })
}

/// Takes one answer of the station in, from `offset` on.
async fn stretch(
    session: &Session,
    path: &str,
    offset: &mut u64,
    sinks: &mut [Sink; 2],
) -> Result<Stretch> {
    let path = Query::new().with("from", *offset).on(path);
    let mut answer = session.client.open(&path).await?;
    let mut bytes: Vec<u8> = Vec::new();
    let begun = *offset;
    while let Ok(Some(piece)) = answer.next().await {
        bytes.extend_from_slice(&piece);
        let mut at = 0;
        while let Some((stream, record)) = first(bytes.get(at..).unwrap_or_default()) {
            at += HEADER + record.len();
            let [stdout, stderr] = &mut *sinks;
            match stream {
                0 => return Ok(Stretch::Over(serde_json::from_slice(record)?)),
                1 => stdout.take(record)?,
                2 => stderr.take(record)?,
                other => bail!(
                    "read the output: a record of stream {other}, and there are only two; the node wrote something else than a record log"
                ),
            }
            *offset += (HEADER + record.len()) as u64;
        }
        bytes.drain(..at);
    }
    Ok(Stretch::Cut(*offset > begun))
}

/// Returns the first record, if it is whole.
fn first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([stream, length @ ..], rest) = bytes.split_first_chunk::<HEADER>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some((*stream, rest.get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_waits_for_its_end() {
        for (bytes, expected) in [
            (&b"abc"[..], 0),
            ("ü".as_bytes(), 0),
            (&"ü".as_bytes()[..1], 1),
            (&"€".as_bytes()[..2], 2),
            (&"😀".as_bytes()[..3], 3),
            (b"\xff", 0),
            (b"\x80\x80\x80\x80", 0),
            (b"", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
