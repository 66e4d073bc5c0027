//! TLS (RFC 5425): the only home of encryption among the inputs. It knows files of keys and streams of bytes.

use std::{io, path::Path, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::InputError;
use crate::config::syslog::TlsFiles;

/// Bytes of one read: a record of TLS.
const RECORD: usize = 16 << 10;

/// How long a sender may take to hear the last word.
const CLOSE: Duration = Duration::from_secs(1);

/// Agrees on keys with senders.
#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

/// Reads certificates and key.
pub(super) fn acceptor(name: &str, files: &TlsFiles) -> Result<Acceptor, InputError> {
    let failed = |path: &Path, problem: String| InputError::Tls {
        name: name.to_owned(),
        path: path.to_owned(),
        problem,
    };
    let chain = certificates(&files.cert).map_err(|problem| failed(&files.cert, problem))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| failed(&files.key, error.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&files.cert, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for one in certificates(path).map_err(|problem| failed(path, problem))? {
                roots
                    .add(one)
                    .map_err(|error| failed(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| failed(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| failed(&files.cert, error.to_string()))?;
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(found)
}

impl Acceptor {
    /// Agrees on keys.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Secure> {
        Ok(Secure {
            stream: self.0.accept(stream).await?,
            first: Vec::new(),
        })
    }
}

/// An encrypted stream.
pub(super) struct Secure {
    stream: TlsStream<TcpStream>,
    /// What was read while waiting: whether there is something is known only by reading it.
    first: Vec<u8>,
}

impl Secure {
    /// Waits until there is something to read, or the end.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if self.first.is_empty() {
            let mut one = [0];
            let count = self.stream.read(&mut one).await?;
            self.first.extend_from_slice(&one[..count]);
        }
        Ok(())
    }

    /// Says that nothing more is read. A sender that waits for that word learns that the stream came to its end.
    pub(super) async fn close(&mut self) {
        // A sender that is gone already does not.
        timeout(CLOSE, self.stream.shutdown()).await.ok();
    }

    /// Reads what is there.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = self.first.len().min(buffer.len());
        buffer[..begin].copy_from_slice(&self.first[..begin]);
        self.first.clear();
        let end = buffer.len().min(begin + RECORD);
        match self.stream.read(&mut buffer[begin..end]).now_or_never() {
            Some(Ok(count)) => Ok(begin + count),
            Some(Err(_)) | None if begin > 0 => Ok(begin),
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
