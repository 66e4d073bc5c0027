//! `httpget`: what an address answers when this node asks.
//!
//! Asks by itself and never through a proxy of the environment: what comes back is what the node can reach.
//! Certificates are held against the roots of the system.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use steward_protocol::body::HttpBody;
use ureq::{
    Agent, ResponseExt,
    config::RedirectAuthHeaders,
    http::{HeaderMap, Uri},
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};

/// How long a connection may take to come about; the order's timeout holds for the whole.
const CONNECT: Duration = Duration::from_secs(30);

/// Most redirects followed.
const REDIRECTS: u32 = 10;

/// Most bytes of a body that are kept, when nothing is said.
const KEPT: u64 = 1 << 20;

/// Most bytes of a body that can be kept: the result is held in memory, and again as text.
const MAX_KEPT: u64 = 8 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// More is to be kept than can be.
    #[error(
        "fetch {url}: \"max_bytes\" is {wanted}, and at most {MAX_KEPT} bytes are kept; fetch it to a file with a shellcommand"
    )]
    TooMuch {
        /// The address.
        url: String,
        /// What was to be kept.
        wanted: u64,
    },
    /// There are no roots to hold a certificate against.
    #[error(
        "fetch {url}: this node has no root certificates; install the package ca-certificates, or set SSL_CERT_FILE"
    )]
    NoRoots {
        /// The address.
        url: String,
    },
    /// There was no answer.
    #[error("fetch {url}{}", hint(.source))]
    Request {
        /// The address.
        url: String,
        /// Why not.
        #[source]
        source: ureq::Error,
    },
    /// The answer broke off.
    #[error("read the answer of {url} to its end")]
    Body {
        /// The address.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What came back; printed as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// The address that answered, after every redirect.
    url: String,
    /// The status.
    status: u16,
    /// Headers; a name that comes more than once has its values in their order, separated by a comma.
    headers: BTreeMap<String, String>,
    /// Bytes of the body that are kept.
    bytes: usize,
    /// Whether there were more.
    truncated: bool,
    /// The body, when it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The body, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// How long it took, in milliseconds.
    ms: u64,
}

impl Answer {
    /// Returns what was not done, when the status is no success.
    pub(super) fn complaint(&self) -> Option<String> {
        let Self { url, status, .. } = self;
        match status {
            200..300 => None,
            300..400 => Some(format!(
                "fetch {url}: it answered with status {status}, a redirect that leads nowhere or is one more than {REDIRECTS}"
            )),
            _ => Some(format!("fetch {url}: it answered with status {status}")),
        }
    }
}

/// Fetches an address.
pub(super) fn get(body: &HttpBody) -> Result<Answer, HttpError> {
    let begin = Instant::now();
    let kept = body.max_bytes.map_or(KEPT, |bytes| bytes.0);
    if kept > MAX_KEPT {
        return Err(HttpError::TooMuch {
            url: body.url.clone(),
            wanted: kept,
        });
    }
    let mut request = agent(body)?.get(&body.url);
    for (name, value) in &body.headers {
        request = request.header(name, value);
    }
    let mut response = request.call().map_err(|source| HttpError::Request {
        url: body.url.clone(),
        source,
    })?;
    let url = shown(response.get_uri());
    let mut content = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(kept + 1)
        .read_to_end(&mut content)
        .map_err(|source| HttpError::Body {
            url: url.clone(),
            source,
        })?;
    let truncated = content.len() as u64 > kept;
    // It was not longer than this before.
    content.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    let kept_bytes = content.len();
    let (text, base64) = match text(content, truncated) {
        Ok(text) => (Some(text), None),
        Err(content) => (None, Some(STANDARD.encode(content))),
    };
    let bytes = text.as_ref().map_or(kept_bytes, String::len);
    Ok(Answer {
        url,
        status: response.status().as_u16(),
        headers: headers(response.headers()),
        bytes,
        truncated,
        text,
        base64,
        ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Returns a body as text, or as it was. A cut may go through a character, which makes nothing binary.
fn text(content: Vec<u8>, truncated: bool) -> Result<String, Vec<u8>> {
    match String::from_utf8(content) {
        Ok(text) => Ok(text),
        Err(error) => {
            let cut_through = truncated && error.utf8_error().error_len().is_none();
            let whole = error.utf8_error().valid_up_to();
            let mut content = error.into_bytes();
            if cut_through {
                content.truncate(whole);
                return String::from_utf8(content).map_err(std::string::FromUtf8Error::into_bytes);
            }
            Err(content)
        }
    }
}

fn agent(body: &HttpBody) -> Result<Agent, HttpError> {
    let mut config = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .max_redirects_will_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(CONNECT))
        .user_agent(concat!("steward-agent/", env!("CARGO_PKG_VERSION")));
    let roots = roots();
    if roots.is_empty() && body.url.starts_with("https://") {
        return Err(HttpError::NoRoots {
            url: body.url.clone(),
        });
    }
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    config = config.tls_config(tls);
    Ok(config.build().into())
}

/// Returns the roots of the system, or those that SSL_CERT_FILE and SSL_CERT_DIR name.
fn roots() -> Vec<Certificate<'static>> {
    // Some that cannot be read do not make the others useless.
    let found = rustls_native_certs::load_native_certs().certs;
    found
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect()
}

fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        found
            .entry(name.as_str().to_owned())
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    found
}

/// Returns an address without the password that may stand in it.
fn shown(uri: &Uri) -> String {
    let whole = uri.to_string();
    match uri
        .authority()
        .and_then(|authority| authority.as_str().split_once('@'))
    {
        Some((user, _)) => whole.replacen(&format!("{user}@"), "", 1),
        None => whole,
    }
}

/// Returns what to do about it, as far as that can be said.
fn hint(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::HostNotFound => " (this node cannot find the host: look at its name service)",
        ureq::Error::Timeout(_) => {
            " (no connection within 30 s: look at the way there, and at firewalls)"
        }
        ureq::Error::Rustls(error) => tls_hint(error),
        // What the handshake says comes in the clothes of a broken connection.
        ureq::Error::Io(error) => {
            let inner = error.get_ref();
            let tls = inner.and_then(|error| error.downcast_ref::<rustls::Error>());
            tls.map_or("", tls_hint)
        }
        _ => "",
    }
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            " (this node trusts nobody who vouches for its certificate: if that is an authority of your own, add it to this node's root certificates)"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            " (its certificate is for another name: fetch it by a name the certificate is for)"
        }
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => {
            " (its certificate is not valid at present: look at its dates, and at this node's clock)"
        }
        _ => " (no encrypted connection came about)",
    }
}
