//! The way to one broker: a connection, made secret where the broker or its address asks for it.
//!
//! Reads no more than the server's first line. It does not know what is said afterwards.

use std::{io, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{InvalidDnsNameError, ServerName},
    },
};

/// How long a broker may take to be reached and to introduce itself. The client waits 5 s.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Longest first line of either side: with the addresses of a large cluster, or with a credential.
const MAX_LINE: usize = 256 * 1024;

/// The port of an address that names none.
const PORT: u16 = 4222;

/// Why a broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No connection, or it broke.
    #[error("reach {place}")]
    Io {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("reach {place} within {} s", PATIENCE.as_secs_f64())]
    Patience {
        /// Where.
        place: String,
    },
    /// What answered is no NATS server.
    #[error("understand what answers at {place}: it is not a NATS server")]
    NotNats {
        /// Where.
        place: String,
    },
    /// TLS is wanted, and this host cannot have a certificate.
    #[error("use TLS with {place}")]
    Host {
        /// Where.
        place: String,
        /// Why not.
        #[source]
        source: InvalidDnsNameError,
    },
    /// The certificates this machine trusts cannot be read.
    #[error("read the certificates that this machine trusts: {text}")]
    Roots {
        /// What is wrong.
        text: String,
    },
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    port: u16,
    tls: bool,
    /// Who we say we are, where the address says so.
    pub(super) user: Option<String>,
    /// What proves it.
    pub(super) password: Option<String>,
}

impl Target {
    /// Reads an address such as `tls://user:password@host:4222`.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("nats", address));
        let authority = rest.split(['/', '?']).next()?;
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => place.split_at(place.rfind(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None => PORT,
        };
        let login = login.map(|login| login.split_once(':').unwrap_or((login, "")));
        let words =
            |pick: fn((&str, &str)) -> String| login.map(pick).filter(|word| !word.is_empty());
        Some(Self {
            host: host.to_owned(),
            port,
            tls: scheme == "tls",
            user: words(|login| login.0.to_owned()),
            password: words(|login| login.1.to_owned()),
        })
    }

    /// Returns another server of the same cluster, as the cluster names it.
    fn beside(&self, address: &str) -> Option<Self> {
        Some(Self {
            tls: self.tls,
            ..Self::parse(address)?
        })
    }

    /// Returns the place for people.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A broker that has introduced itself.
pub(super) struct Dialled {
    /// The connection; only its first line has been read.
    pub(super) stream: Box<dyn Stream>,
    /// That line, as the client at this end should read it.
    pub(super) info: Vec<u8>,
    /// The other servers of its cluster.
    pub(super) others: Vec<Target>,
}

/// Connects, and agrees on TLS as far as the address or the server asks for it.
pub(super) async fn dial(target: &Target) -> Result<Dialled, DialError> {
    let place = target.place();
    match tokio::time::timeout(PATIENCE, dial_patiently(target, &place)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Patience { place }),
    }
}

async fn dial_patiently(target: &Target, place: &str) -> Result<Dialled, DialError> {
    let unreachable = |source| DialError::Io {
        place: place.to_owned(),
        source,
    };
    let mut stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let line = read_line(&mut stream).await.map_err(unreachable)?;
    let mut info = line
        .strip_prefix(b"INFO ")
        .and_then(|json| serde_json::from_slice::<Map<String, Value>>(json).ok())
        .ok_or_else(|| DialError::NotNats {
            place: place.to_owned(),
        })?;
    let asks = info.get("tls_required").and_then(Value::as_bool);
    let stream: Box<dyn Stream> = match target.tls || asks == Some(true) {
        false => Box::new(stream),
        true => {
            let name = ServerName::try_from(target.host.clone());
            let name = name.map_err(|source| DialError::Host {
                place: place.to_owned(),
                source,
            })?;
            let connector = TlsConnector::from(Arc::new(trusting().await?));
            Box::new(connector.connect(name, stream).await.map_err(unreachable)?)
        }
    };
    // The client must neither agree on TLS once more, nor go past us to the others.
    for key in ["tls_required", "tls_verify", "tls_available"] {
        info.remove(key);
    }
    let urls = info.remove("connect_urls").unwrap_or_default();
    let others = urls.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Dialled {
        stream,
        info: line_of("INFO", &info),
        others: others
            .iter()
            .filter_map(|url| target.beside(url.as_str()?))
            .collect(),
    })
}

/// Returns a line of the protocol.
pub(super) fn line_of(verb: &str, fields: &Map<String, Value>) -> Vec<u8> {
    format!("{verb} {}\r\n", Value::Object(fields.clone())).into_bytes()
}

/// Reads one line, without its end, and nothing after it.
pub(super) async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        // Byte by byte: once per connection, and what follows may be TLS already.
        let byte = stream.read_u8().await?;
        if byte == b'\n' && line.last() == Some(&b'\r') {
            line.pop();
            return Ok(line);
        }
        line.push(byte);
        if line.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Returns a client's side of TLS that trusts whom this machine trusts.
async fn trusting() -> Result<ClientConfig, DialError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| DialError::Roots {
            text: error.to_string(),
        })?;
    if found.certs.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(DialError::Roots {
            text: match errors.is_empty() {
                true => "there are none; install ca-certificates, or name a file in SSL_CERT_FILE"
                    .to_owned(),
                false => errors.join("; "),
            },
        });
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let target = |host: &str, port, tls, user: Option<&str>, password: Option<&str>| Target {
            host: host.to_owned(),
            port,
            tls,
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
        };
        for (address, expected) in [
            (
                "nats://127.0.0.1:4333",
                target("127.0.0.1", 4333, false, None, None),
            ),
            ("broker", target("broker", 4222, false, None, None)),
            ("tls://broker/", target("broker", 4222, true, None, None)),
            ("tls://[::1]:1", target("::1", 1, true, None, None)),
            ("[::1]", target("::1", 4222, false, None, None)),
            (
                "nats://me:p@ss@broker:7",
                target("broker", 7, false, Some("me"), Some("p@ss")),
            ),
            (
                "nats://token@broker",
                target("broker", 4222, false, Some("token"), None),
            ),
        ] {
            assert_eq!(Target::parse(address), Some(expected), "{address}");
        }
        assert_eq!(Target::parse("broker:x"), None);
    }
}
