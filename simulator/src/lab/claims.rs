//! What the station claims: its API, asked over its socket, as `steward msg … -o json` prints it.
//!
//! It speaks just enough HTTP/1.1 for one question per connection, and reads the answer as JSON. It takes
//! nothing from the station's own crate: what judges must not share the judged one's mistakes.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long one answer may take; a station that was stopped answers never.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take while faults are made, which must not wait for it.
const HASTE: Duration = Duration::from_secs(1);

/// What the station says of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) exit_code: Option<i64>,
    pub(crate) signal: Option<i64>,
    /// Whether it is said to have run.
    pub(crate) started: bool,
    /// What it is said to have printed, where that was kept as text.
    pub(crate) stdout: Option<String>,
    /// Digest of all it wrote there, also where the text was cut.
    pub(crate) stdout_blake3: Option<String>,
    pub(crate) reason: String,
    /// Since when it is in this state, in milliseconds since 1970 by the station's clock.
    pub(crate) since: Option<i64>,
    /// Whether it was ever held until what it repeats was settled.
    pub(crate) held: bool,
}

impl Claim {
    /// Returns whether it is said to have run, if it is said to be cancelled. A child that an agent found
    /// again and stopped has no outcome, but a reason.
    pub(crate) fn was_stopped(&self) -> bool {
        self.started || self.reason.contains("while it ran")
    }
}

/// What the station says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The message it repeats.
    pub(crate) retry_of: Option<String>,
    pub(crate) deliveries: Vec<Claim>,
}

/// How far the station is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) open: u64,
    pub(crate) online: u64,
    pub(crate) connected: bool,
    /// What the station counted, by name.
    pub(crate) counters: Vec<(String, u64)>,
}

/// What came of asking for a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// Nobody was there: nothing was recorded.
    Away,
    /// It was said and not answered, or not for certain: it may have been recorded.
    Unanswered,
    /// It was refused: nothing was recorded.
    Refused(String),
    /// It is recorded.
    Done(Value),
}

/// A request for a change that was said and not answered yet.
#[derive(Debug)]
pub(crate) struct Asking {
    stream: UnixStream,
    said: io::Result<()>,
}

impl Asking {
    /// Waits for the answer.
    pub(crate) fn end(mut self) -> Reply {
        let mut answer = Vec::new();
        match self
            .said
            .and_then(|()| self.stream.read_to_end(&mut answer))
        {
            Ok(_) => reply(&answer),
            Err(_) => Reply::Unanswered,
        }
    }
}

/// The way to one station.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    socket: PathBuf,
    patience: Duration,
}

impl Desk {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            socket: state_dir.join("steward.sock"),
            patience: PATIENCE,
        }
    }

    /// Returns the same way for somebody who does not wait long.
    pub(crate) fn hasty(&self) -> Self {
        Self {
            patience: HASTE,
            ..self.clone()
        }
    }

    /// Asks for `path` below `/api/v1`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let question =
            format!("GET /api/v1{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let doing = || format!("ask the station for {path}");
        let mut stream = UnixStream::connect(&self.socket).with_context(doing)?;
        self.say(&stream, &question).with_context(doing)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).with_context(doing)?;
        body(&answer).with_context(doing)
    }

    /// Asks for a change at `path` below `/api/v1`.
    pub(crate) fn post(&self, path: &str, ask: &Value) -> Reply {
        self.begin(path, ask).map_or(Reply::Away, Asking::end)
    }

    /// Says what is wanted and does not wait for the answer; none if nobody is there.
    pub(crate) fn begin(&self, path: &str, ask: &Value) -> Option<Asking> {
        let ask = ask.to_string();
        let length = ask.len();
        let question = format!(
            "POST /api/v1{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{ask}"
        );
        let stream = UnixStream::connect(&self.socket).ok()?;
        let said = self.say(&stream, &question);
        Some(Asking { stream, said })
    }

    fn say(&self, mut stream: &UnixStream, question: &str) -> io::Result<()> {
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.write_all(question.as_bytes())
    }

    pub(crate) fn standing(&self) -> Result<Standing> {
        let status = self.get("/status")?;
        let numbers = |value: &Value| -> Vec<(String, u64)> {
            let object = value.as_object().into_iter().flatten();
            object
                .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)))
                .collect()
        };
        let online = numbers(&status["nodes"]);
        Ok(Standing {
            open: numbers(&status["open"])
                .iter()
                .map(|(_, count)| count)
                .sum(),
            online: online
                .iter()
                .filter(|(name, _)| name == "online")
                .map(|(_, count)| count)
                .sum(),
            connected: status["broker"]["connected"] == true,
            counters: numbers(&status["counters"]),
        })
    }

    /// Returns ids and names of the newest messages; of all, if `most` is 0.
    pub(crate) fn newest(&self, most: usize) -> Result<Vec<(String, String)>> {
        let list = self.get(&format!("/messages?limit={most}"))?;
        let list = list.as_array().context("read the list of messages")?;
        Ok(list
            .iter()
            .map(|message| (text(&message["id"]), text(&message["name"])))
            .collect())
    }

    pub(crate) fn message(&self, id: &str) -> Result<Claimed> {
        let message = self.get(&format!("/messages/{id}"))?;
        read(&message).with_context(|| format!("read the message {id}"))
    }
}

fn body(answer: &[u8]) -> Result<Value> {
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let split = split.context("find the end of the answer's header")?;
    let head = String::from_utf8_lossy(&answer[..split]);
    let body = &answer[split + 4..];
    if !head.starts_with("HTTP/1.1 200") {
        bail!(
            "understand the answer: {} {}",
            head.lines().next().unwrap_or_default(),
            String::from_utf8_lossy(body)
        );
    }
    serde_json::from_slice(body).context("read the answer as JSON")
}

/// Reads the answer to a request for a change. What the station could not do may still have been half done.
fn reply(answer: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Reply::Unanswered;
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    match (status, serde_json::from_str(body)) {
        ("200" | "201", Ok(value)) => Reply::Done(value),
        (status, Ok(_)) if status.starts_with('4') => Reply::Refused(body.to_owned()),
        _ => Reply::Unanswered,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read(message: &Value) -> Option<Claimed> {
    let deliveries = message["deliveries"].as_array()?;
    let claim = |delivery: &Value| Claim {
        node: text(&delivery["node"]),
        state: text(&delivery["state"]),
        exit_code: delivery["exit_code"].as_i64(),
        signal: delivery["signal"].as_i64(),
        started: delivery["started_at"].is_string(),
        // A full disk takes output first; what was cut says so, and its digest still binds.
        stdout: delivery["stdout"]["text"]
            .as_str()
            .filter(|_| delivery["stdout"]["truncated"] != true)
            .map(str::to_owned),
        stdout_blake3: delivery["stdout"]["blake3"].as_str().map(str::to_owned),
        reason: text(&delivery["reason"]),
        since: milliseconds(&delivery["since"]),
        held: is_held(delivery),
    };
    Some(Claimed {
        id: text(&message["id"]),
        name: text(&message["name"]),
        retry_of: message["retry_of"].as_str().map(str::to_owned),
        deliveries: deliveries.iter().map(claim).collect(),
    })
}

fn milliseconds(value: &Value) -> Option<i64> {
    let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(at.as_millisecond())
}

fn is_held(delivery: &Value) -> bool {
    let notes = delivery["notes"].as_array().into_iter().flatten();
    let texts = notes.filter_map(|note| note["text"].as_str());
    texts.into_iter().any(|text| text.starts_with("held"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_answered_for_certain_counts_as_recorded_or_refused() {
        for (answer, expected) in [
            ("", Reply::Unanswered),
            ("HTTP/1.1 201 Created\r\n\r\n[1", Reply::Unanswered),
            ("HTTP/1.1 503 No\r\n\r\n[]", Reply::Unanswered),
            ("HTTP/1.1 422 No\r\n\r\n[]", Reply::Refused("[]".to_owned())),
            ("HTTP/1.1 201 Created\r\n\r\n1", Reply::Done(Value::from(1))),
        ] {
            assert_eq!(reply(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn an_answer_is_read_or_said_to_be_none() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
        assert_eq!(body(good).expect("read"), Value::Array(Vec::new()));
        for bad in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n[",
            b"HTTP/1.1 500 No\r\n\r\n[]",
        ] {
            assert!(body(bad).is_err());
        }
    }
}
