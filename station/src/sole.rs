//! Lets one station of a name use a broker from this host, whatever their state directories are.
//!
//! Holds an abstract Unix socket nobody connects to: the kernel frees it with the process, so that
//! nothing is left after a crash. It knows nothing of other hosts; there the ledger's id tells.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use steward_protocol::NodeName;

/// Longest part of a broker's address in the socket's name, which the kernel bounds to 107 bytes.
const MAX_DIGEST: usize = 32;

/// Why this station may not run here.
#[derive(Debug, thiserror::Error)]
pub enum SoleError {
    /// Another one does.
    #[error(
        "be the station {name} at the broker {broker}: another station of this name uses it from this host; stop that one, or give this one another --name"
    )]
    Taken {
        /// The name both have.
        name: NodeName,
        /// The broker both use.
        broker: String,
    },
    /// The kernel refused the socket.
    #[error("reserve the name {name} on this host")]
    Socket {
        /// The name.
        name: NodeName,
        /// Why not.
        source: io::Error,
    },
}

/// Held for as long as the station lives.
#[derive(Debug)]
pub struct Sole {
    _socket: UnixListener,
}

impl Sole {
    /// Reserves `name` at `broker`, an address without secrets.
    ///
    /// # Errors
    ///
    /// Fails when another station has it.
    pub fn reserve(name: &NodeName, broker: &str) -> Result<Self, SoleError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => SoleError::Taken {
                name: name.clone(),
                broker: broker.to_owned(),
            },
            _ => SoleError::Socket {
                name: name.clone(),
                source,
            },
        };
        let digest = steward_protocol::Digest::of(broker.as_bytes()).to_string();
        let digest = digest.get(..MAX_DIGEST).unwrap_or(&digest);
        // Name and digest are bounded: 63 and 32 bytes.
        let address = SocketAddr::from_abstract_name(format!("steward/{digest}/{name}"));
        let socket = address.and_then(|address| UnixListener::bind_addr(&address));
        socket
            .map(|socket| Self { _socket: socket })
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_reserved_once_at_a_broker_and_free_again_afterwards() {
        let name: NodeName = format!("s{}", std::process::id()).parse().expect("a name");
        let long: NodeName = "x".repeat(63).parse().expect("a name");
        let broker = "nats://broker:4222";
        let first = Sole::reserve(&name, broker).expect("free");
        let second = Sole::reserve(&name, broker);
        assert!(matches!(second, Err(SoleError::Taken { .. })), "{second:?}");
        Sole::reserve(&name, "nats://other:4222").expect("another broker");
        Sole::reserve(&long, broker).expect("another name");
        drop(first);
        Sole::reserve(&name, broker).expect("free again");
    }
}
