//! The HTTP/JSON API: on a Unix socket for everything, on loopback TCP for reading only.
//!
//! The socket belongs to the station's user (0600) and the kernel names the peer, whose uid becomes
//! `submitted_by`. It is the only way in for changes until there is signing (design section 7).

mod changes;
mod error;
mod extract;
mod log;
mod logs;
mod output;
mod routes;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    extract::{
        Request,
        connect_info::{Connected, MockConnectInfo},
    },
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
};

use crate::{
    bus::Bus, http::error::ApiError, inbox::InboxTiming, logs::Logs, signals::Stop,
    station::StationHandle, transfer::Transfers,
};

/// Ledger queries at once; more wait their turn.
const READERS: usize = 8;

/// What the routes look at or ask.
#[derive(Debug, Clone)]
pub struct Api {
    /// The loop.
    pub station: StationHandle,
    /// The broker.
    pub bus: Bus,
    /// The station's own facts.
    pub about: Arc<About>,
    /// What is in the inbox's way.
    pub inbox: watch::Receiver<Option<String>>,
    /// The end.
    pub stop: Stop,
    /// The way to what nodes send.
    pub(crate) outputs: Option<Outputs>,
    /// The way to what nodes log.
    pub(crate) logs: Option<Logs>,
    readers: Arc<Semaphore>,
}

/// The way to what nodes send.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    pub(crate) transfers: Transfers,
    pub(crate) state_dir: PathBuf,
}

impl Api {
    /// Returns the API of a running station.
    pub fn new(
        station: StationHandle,
        bus: Bus,
        about: About,
        inbox: watch::Receiver<Option<String>>,
        stop: Stop,
    ) -> Self {
        let readers = Arc::new(Semaphore::new(READERS));
        Self {
            station,
            bus,
            about: Arc::new(about),
            inbox,
            stop,
            outputs: None,
            logs: None,
            readers,
        }
    }

    /// Adds the way to what nodes send.
    #[must_use]
    pub fn with_transfers(self, transfers: Transfers, state_dir: PathBuf) -> Self {
        let outputs = Some(Outputs {
            transfers,
            state_dir,
        });
        Self { outputs, ..self }
    }

    /// Adds the way to what nodes log.
    #[must_use]
    pub fn with_logs(self, logs: Logs) -> Self {
        let logs = Some(logs);
        Self { logs, ..self }
    }
}

/// What does not change while a station runs.
#[derive(Debug, Clone)]
pub struct About {
    /// The station's node name.
    pub name: steward_protocol::NodeName,
    /// The ledger's id.
    pub ledger_id: steward_protocol::LedgerId,
    /// This reign.
    pub epoch: u64,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// Where to drop files.
    pub inbox: PathBuf,
    /// How long files there are left alone.
    pub timing: InboxTiming,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The socket cannot be made.
    #[error("listen on the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port cannot be had.
    #[error("listen on http://{address}; choose another --http address")]
    Port {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Who is on the other end of a Unix socket, by the kernel's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// Returns who that is, as it becomes `submitted_by`.
    fn name(self) -> String {
        self.uid
            .map_or_else(|| "unknown".to_owned(), |uid| format!("uid:{uid}"))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        }
    }
}

/// Binds the socket, readable and writable by the owner alone from its first moment.
///
/// # Errors
///
/// Names the path and why.
pub fn bind_socket(path: &Path) -> Result<UnixListener, HttpError> {
    let failed = |source| HttpError::Socket {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    for leftover in [&temporary, &path.to_owned()] {
        steward_files::remove(leftover).map_err(failed)?;
    }
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    Ok(listener)
}

/// Takes the loopback port.
///
/// # Errors
///
/// Names the address and why.
pub async fn bind_port(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Port { address, source })
}

/// Serves until told to stop; requests in hand are answered first.
pub async fn serve_socket(listener: UnixListener, api: Api) {
    let stop = api.stop.clone();
    let router = routes::reading().merge(routes::changing()).with_state(api);
    let service = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, service)
        .with_graceful_shutdown(async move { stop.draining().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the socket is not served any more");
    }
}

/// Serves reading only, to callers that name a loopback host.
pub async fn serve_port(listener: TcpListener, api: Api) {
    let stop = api.stop.clone();
    let router: Router = routes::reading()
        .merge(changes::refusing())
        .layer(middleware::from_fn(check_host))
        .layer(MockConnectInfo(Peer { uid: None }))
        .with_state(api);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.draining().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the port is not served any more");
    }
}

/// A page elsewhere can make a browser ask us under its own name (DNS rebinding); such a name is not loopback.
async fn check_host(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if host.is_some_and(is_loopback) {
        return harden(next.run(request).await);
    }
    harden(ApiError::host().into_response())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:80", false),
            ("10.0.0.1:80", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
