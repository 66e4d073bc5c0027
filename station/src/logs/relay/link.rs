//! The connection to a receiver, made secret where its address says so. It does not know what is sent.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
    },
};

/// How long a receiver may take to be reached, and to agree on keys.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long bytes may stay without acknowledgement before the connection counts as lost.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long a receiver may take to read to the end when we are done.
const FAREWELL: Duration = Duration::from_secs(3);

/// Whether what is sent may be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// `tcp://`.
    Plain,
    /// `tls://` (RFC 5425).
    Tls,
}

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub secrecy: Secrecy,
    /// Whom to trust, a PEM file; whom this machine trusts if there is none.
    pub ca: Option<PathBuf>,
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.secrecy {
            Secrecy::Plain => "tcp",
            Secrecy::Tls => "tls",
        };
        match self.host.contains(':') {
            true => write!(formatter, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(formatter, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("reach {place}")]
    Reach {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It broke.
    #[error("send to {place}")]
    Send {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// TLS is wanted, and this host cannot have a certificate.
    #[error("use TLS with {place}")]
    Host {
        /// Where.
        place: String,
        /// Why not.
        source: InvalidDnsNameError,
    },
    /// Nobody is trusted.
    #[error("read the certificates to trust for {place}: {text}")]
    Roots {
        /// Where.
        place: String,
        /// What is wrong.
        text: String,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(super) struct Link {
    place: String,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
}

impl Link {
    /// Reaches a receiver.
    pub(super) async fn open(address: &Address) -> Result<Self, LinkError> {
        let place = address.to_string();
        let reach = |source| LinkError::Reach {
            place: address.to_string(),
            source,
        };
        let late = |_| reach(io::Error::from(io::ErrorKind::TimedOut));
        let dial = TcpStream::connect((address.host.as_str(), address.port));
        let stream = timeout(PATIENCE, dial)
            .await
            .map_err(late)?
            .map_err(reach)?;
        watch(&stream).map_err(reach)?;
        let stream: Box<dyn Stream> = match address.secrecy {
            Secrecy::Plain => Box::new(stream),
            Secrecy::Tls => {
                let connector = TlsConnector::from(Arc::new(config(address)?));
                let name = ServerName::try_from(address.host.clone());
                let name = name.map_err(|source| LinkError::Host {
                    place: place.clone(),
                    source,
                })?;
                let agreed = timeout(PATIENCE, connector.connect(name, stream)).await;
                Box::new(agreed.map_err(late)?.map_err(reach)?)
            }
        };
        let (reader, writer) = split(stream);
        Ok(Self {
            place,
            reader,
            writer,
        })
    }

    /// Sends, and meanwhile listens for the end.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let Self {
            reader,
            writer,
            place,
        } = self;
        let written = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        let sent = tokio::select! {
            biased;
            source = end(reader) => Err(source),
            written = written => written,
        };
        sent.map_err(|source| LinkError::Send {
            place: place.clone(),
            source,
        })
    }

    /// Waits for the end of the connection.
    pub(super) async fn lost(&mut self) -> LinkError {
        LinkError::Send {
            source: end(&mut self.reader).await,
            place: self.place.clone(),
        }
    }

    /// Says that nothing more comes. Returns whether the receiver then closed in good order, as it does when it has
    /// read everything.
    pub(super) async fn close(mut self) -> bool {
        let closed = async {
            self.writer.shutdown().await?;
            let mut rest = [0; 256];
            while self.reader.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        matches!(timeout(FAREWELL, closed).await, Ok(Ok(())))
    }
}

/// Reads what nobody expects until the connection ends.
async fn end(reader: &mut ReadHalf<Box<dyn Stream>>) -> io::Error {
    let mut rest = [0; 256];
    loop {
        match reader.read(&mut rest).await {
            Ok(0) => {
                let text = "the receiver closed the connection";
                return io::Error::new(io::ErrorKind::ConnectionReset, text);
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Lets the kernel notice a receiver that is gone without a word.
fn watch(stream: &TcpStream) -> io::Result<()> {
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, UNACKNOWLEDGED)?;
    Ok(())
}

fn config(address: &Address) -> Result<ClientConfig, LinkError> {
    let wrong = |text: String| LinkError::Roots {
        place: address.to_string(),
        text,
    };
    let mut roots = RootCertStore::empty();
    match &address.ca {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            roots.add_parsable_certificates(certificates);
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong("there are none".to_owned()));
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
