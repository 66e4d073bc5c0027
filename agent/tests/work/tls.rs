//! `httpget` from servers whose certificates are good, or bad in one way each.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519,
    date_time_ymd,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::{Worked, begin, end, http::page, work};

/// Somebody who vouches for others.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        Self(issuer)
    }

    /// Writes its certificate as a file of roots.
    fn roots(&self, dir: &TempDir, name: &str) -> PathBuf {
        let path = dir.path().join(name);
        let text = STANDARD.encode(self.0.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(&path, pem).expect("written");
        path
    }

    /// Starts a server this authority vouches for.
    fn serve(&self, params: CertificateParams) -> SocketAddr {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("there are some")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they belong together");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(&config, stream);
            }
        });
        address
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn named(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params
}

/// Answers one request; whoever does not go on with the handshake gets nothing.
fn answer(config: &Arc<ServerConfig>, stream: TcpStream) {
    let connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    while line.trim().len() < line.len() || line.is_empty() {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.trim().is_empty() => break,
            Ok(_) => {}
        }
    }
    let stream = reader.get_mut();
    stream.write_all(&page("200 OK", "", b"in confidence")).ok();
    stream.conn.send_close_notify();
    stream.flush().ok();
}

fn fetch(url: &str, roots: &PathBuf) -> Worked {
    let mut command = work("httpget");
    command
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR");
    end(begin(command, &json!({ "url": url }).to_string()))
}

#[test]
fn a_server_is_believed_only_with_a_certificate_of_a_trusted_authority_for_its_name_and_time() {
    let dir = tempdir().expect("a directory");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (trusted, other) = (ours.roots(&dir, "ours"), theirs.roots(&dir, "theirs"));
    let empty = dir.path().join("empty");
    fs::write(&empty, "").expect("written");
    let good = ours.serve(named("good", &["127.0.0.1"]));
    let elsewhere = ours.serve(named("elsewhere", &["elsewhere.example"]));
    let mut params = named("old", &["127.0.0.1"]);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    let old = ours.serve(params);
    let worked = fetch(&format!("https://{good}/"), &trusted);
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let said = worked.json();
    assert_eq!(
        (&said["status"], &said["text"]),
        (&json!(200), &json!("in confidence"))
    );
    for (what, server, roots, words) in [
        (
            "an unknown authority",
            good,
            &other,
            "trusts nobody who vouches for its certificate",
        ),
        (
            "another name",
            elsewhere,
            &trusted,
            "its certificate is for another name",
        ),
        (
            "out of date",
            old,
            &trusted,
            "its certificate is not valid at present",
        ),
        (
            "no roots at all",
            good,
            &empty,
            "this node has no root certificates",
        ),
    ] {
        let url = format!("https://{server}/");
        let worked = fetch(&url, roots);
        assert_eq!(worked.code, Some(1), "{what}: {}", worked.stderr);
        assert!(worked.stdout.is_empty(), "{what}: {:?}", worked.stdout);
        let line = worked.stderr.trim_end_matches('\n');
        assert!(
            line.starts_with(&format!("httpget: failed to fetch {url}")),
            "{what}: {line}"
        );
        assert!(
            line.contains(words) && !line.contains('\n'),
            "{what}: {line}"
        );
    }
}
