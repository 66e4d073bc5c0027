//! Speaks to the station over its socket: HTTP/1 with JSON, one connection per question.
//!
//! Knows paths and views; what an answer means to the operator is its callers' business.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use crate::{config::SOCKET, view::ErrorView};

/// How long an answer may take beyond what the question itself waits for. The station answers
/// within milliseconds; a machine that writes to a slow card while 1,000 files arrive does not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("reach the station at {}: {}", socket.display(), advice(socket, cause))]
    Unreachable {
        /// The socket tried.
        socket: PathBuf,
        /// What the system said. Not a source: the text already says what it means.
        cause: io::Error,
    },
    /// The connection broke, or nothing came in time.
    #[error("get an answer from the station at {}: {what}", socket.display())]
    Lost {
        /// The socket used.
        socket: PathBuf,
        /// What happened.
        what: String,
    },
    /// The station said no, and why.
    #[error("{}", view.error)]
    Answer {
        /// The HTTP status.
        status: u16,
        /// Its reasons.
        view: ErrorView,
    },
    /// What came is not what a station of this version says.
    #[error(
        "understand the answer of the station at {} to {path}: {what}; station and command line may be of different versions",
        socket.display()
    )]
    Foreign {
        /// The socket used.
        socket: PathBuf,
        /// The question.
        path: String,
        /// What was wrong with the answer.
        what: String,
    },
}

impl ClientError {
    /// Tells whether nobody was there, or the connection broke: a restart looks like this.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lost { .. })
    }

    /// Tells whether the station was there and could not answer now; the same question may work later.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Answer {
                status: 500..=599,
                ..
            }
        )
    }
}

fn advice(socket: &Path, cause: &io::Error) -> String {
    let state_dir = socket.parent().unwrap_or(socket).display();
    match cause.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no such socket; start a station with `steward serve --state-dir {state_dir}`, or name the directory of a running one with --state-dir or STEWARD_STATE_DIR"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "nobody listens there any more; start the station again with `steward serve --state-dir {state_dir}`"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not use it ({cause}); only the user who runs the station and root may"
        ),
        _ => cause.to_string(),
    }
}

/// A way to the station.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// A question: where, and how.
struct Question {
    method: Method,
    path: String,
    body: Bytes,
    /// How long the station may hold the answer back on purpose.
    wait: Duration,
}

impl Client {
    /// Returns the way to the station that keeps its state in `state_dir`.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            socket: state_dir.join(SOCKET),
        }
    }

    /// Asks for `path` under `/api/v1`.
    ///
    /// # Errors
    ///
    /// Fails when the station is out of reach, says no, or cannot be understood.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_waiting(path, Duration::ZERO).await
    }

    /// Asks for `path`, whose answer the station may hold back for `wait`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(crate) async fn get_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<T, ClientError> {
        self.ask(Question {
            method: Method::GET,
            path: format!("/api/v1{path}"),
            body: Bytes::new(),
            wait,
        })
        .await
    }

    /// Hands `body` to `path` under `/api/v1`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.ask(Question {
            method: Method::POST,
            path: format!("/api/v1{path}"),
            body: body.into(),
            wait: Duration::ZERO,
        })
        .await
    }

    async fn ask<T: DeserializeOwned>(&self, question: Question) -> Result<T, ClientError> {
        let path = question.path.clone();
        let deadline = question.wait + ANSWER_DEADLINE;
        let (status, body) = timeout(deadline, self.exchange(question))
            .await
            .map_err(|_| self.lost(&format!("none came within {}s", deadline.as_secs())))??;
        let foreign = |what: String| ClientError::Foreign {
            socket: self.socket.clone(),
            path: path.clone(),
            what,
        };
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| foreign(error.to_string()));
        }
        match serde_json::from_slice(&body) {
            Ok(view) => Err(ClientError::Answer { status, view }),
            Err(_) => Err(foreign(format!("status {status} without a reason"))),
        }
    }

    /// Asks for `path` under `/api/v1`, whose answer comes piece by piece and may take for ever.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(crate) async fn open(&self, path: &str) -> Result<Pieces, ClientError> {
        let question = Question {
            method: Method::GET,
            path: format!("/api/v1{path}"),
            body: Bytes::new(),
            wait: Duration::ZERO,
        };
        let response = timeout(ANSWER_DEADLINE, self.send(question))
            .await
            .map_err(|_| self.lost("it did not begin in time"))??;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            let socket = self.socket.clone();
            let body = response.into_body();
            return Ok(Pieces { body, socket });
        }
        let lost = |error: hyper::Error| self.lost(&error.to_string());
        let body = response.into_body().collect().await.map_err(lost)?;
        match serde_json::from_slice(&body.to_bytes()) {
            Ok(view) => Err(ClientError::Answer { status, view }),
            Err(error) => Err(ClientError::Foreign {
                socket: self.socket.clone(),
                path: path.to_owned(),
                what: error.to_string(),
            }),
        }
    }

    async fn exchange(&self, question: Question) -> Result<(u16, Bytes), ClientError> {
        let response = self.send(question).await?;
        let status = response.status().as_u16();
        let lost = |error: hyper::Error| self.lost(&error.to_string());
        let body = response.into_body().collect().await.map_err(lost)?;
        Ok((status, body.to_bytes()))
    }

    async fn send(&self, question: Question) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|cause| ClientError::Unreachable {
                    socket: self.socket.clone(),
                    cause,
                })?;
        let lost = |error: hyper::Error| self.lost(&error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Ends with the exchange; its error is also the exchange's error.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header(header::HOST, "localhost")
            .body(Full::new(question.body))
            .map_err(|error| self.lost(&error.to_string()))?;
        sender.send_request(request).await.map_err(lost)
    }

    /// Returns an error that says that the station cannot be asked.
    pub(super) fn lost(&self, what: &str) -> ClientError {
        ClientError::Lost {
            socket: self.socket.clone(),
            what: what.to_owned(),
        }
    }
}

/// An answer that comes piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: Incoming,
    socket: PathBuf,
}

impl Pieces {
    /// Returns the next piece, or nothing at the end.
    ///
    /// # Errors
    ///
    /// Fails when the connection breaks.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // What is no data is of no interest.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(ClientError::Lost {
                        socket: self.socket.clone(),
                        what: error.to_string(),
                    });
                }
            }
        }
    }
}

/// Builds the part of an address after its path.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Returns an empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&encode(&value.to_string()));
        self
    }

    /// Adds a parameter if there is a value for it.
    #[must_use]
    pub(crate) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Returns `path` with the parameters.
    pub(crate) fn on(self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
