//! UDP (RFC 5426): one datagram, one message; many with one call.
//!
//! What the kernel has no room for it counts, and says so with the next datagram; the count becomes a gap in front of it.
//! What it drops before a silence is read from its table of sockets.

use std::{
    fs,
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt,
    },
};
use rustix::net::sockopt as rx;
use steward_protocol::logs::{Gap, Reason};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{InputError, LAST, LOOK, Work, gather, source};
use crate::syslog::{board::add, feed::now, route::Tell, spool::Portion};

/// Most datagrams taken with one call: enough that the call is a small part of the work.
const DATAGRAMS: usize = 32;

/// Memory for the datagrams of one call.
const BUFFER: usize = 1 << 20;

/// Bytes after which a portion is handed over although more is there.
const PORTION: usize = 128 << 10;

/// How long messages wait for room: longer than a busy disk takes to sync. No sender waits with them: what comes meanwhile the
/// kernel's buffer takes, and counts what it cannot, so giving up earlier would only lose more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Receives until told to end.
pub(super) async fn run(work: Work, address: SocketAddr) -> Result<(), InputError> {
    let socket = UdpSocket::bind(address)
        .await
        .map_err(|error| work.listening(error))?;
    raise(&socket, work.input.receive_buffer);
    // An old kernel without it still tells in its table.
    setsockopt(&socket, sockopt::RxqOvfl, &1).ok();
    work.feed.tally().trouble(None);
    let mut receiver = Receiver::new(socket, &work);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = work.stop.cancelled() => break,
            ready = receiver.socket.readable() => {
                ready.map_err(|error| work.receiving(error))?;
                receiver.take().await?;
            }
            _ = looks.tick() => {
                receiver.look().await?;
                work.feed.tell(Tell::Due)?;
            }
        }
    }
    let deadline = Instant::now() + LAST;
    while Instant::now() < deadline && receiver.take().await? > 0 {}
    receiver.is_busy = true;
    receiver.look().await
}

/// Makes the kernel's buffer as large as it lets us.
pub(super) fn raise(socket: &impl AsFd, bytes: usize) {
    if rx::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        rx::set_socket_recv_buffer_size(socket, bytes).ok();
    }
    // The kernel doubles what it is asked for, and tells the double.
    let has = rx::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    if has < bytes {
        tracing::info!(
            asked = bytes,
            has,
            "the kernel keeps fewer datagrams than asked for; net.core.rmem_max allows more"
        );
    }
}

/// One datagram of a call.
struct Datagram {
    peer: Option<SocketAddr>,
    kept: usize,
    original: usize,
    drops: Option<u32>,
}

struct Receiver<'w> {
    socket: UdpSocket,
    work: &'w Work,
    buffer: Vec<u8>,
    slot: usize,
    /// How many datagrams the kernel has dropped, as far as told.
    drops: u32,
    inode: Option<u64>,
    /// Whether something came since the kernel's table was last looked at.
    is_busy: bool,
    /// The peer of the last message, and its name.
    last: Option<(Option<SocketAddr>, Arc<str>)>,
}

impl<'w> Receiver<'w> {
    fn new(socket: UdpSocket, work: &'w Work) -> Self {
        let slot = work.input.max_message;
        let count = (BUFFER / slot).clamp(1, DATAGRAMS);
        let inode = rustix::fs::fstat(&socket).ok().map(|found| found.st_ino);
        Self {
            socket,
            work,
            buffer: vec![0; slot * count],
            slot,
            drops: 0,
            inode,
            is_busy: false,
            last: None,
        }
    }

    /// Takes what is there, at most a portion's worth, and returns how many datagrams that was.
    async fn take(&mut self) -> Result<usize, InputError> {
        let (mut portions, mut count, mut bytes): (Vec<Portion>, _, _) = (Vec::new(), 0, 0);
        while bytes < PORTION {
            let call = |socket: &UdpSocket, buffer: &mut Vec<u8>, slot| {
                socket.try_io(Interest::READABLE, || receive(socket, buffer, slot))
            };
            let datagrams = match call(&self.socket, &mut self.buffer, self.slot) {
                Ok(datagrams) => datagrams,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What a peer has refused of ours: nothing was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(self.work.receiving(error)),
            };
            for (index, datagram) in datagrams.iter().enumerate() {
                self.add(&mut portions, index * self.slot, datagram);
                bytes += datagram.kept;
            }
            count += datagrams.len();
            if datagrams.is_empty() {
                break;
            }
        }
        self.is_busy |= count > 0;
        for portion in portions {
            self.work.feed.offer(portion, PATIENCE).await?;
        }
        Ok(count)
    }

    fn add(&mut self, portions: &mut Vec<Portion>, at: usize, datagram: &Datagram) {
        let dropped = datagram.drops.map_or(0, |drops| self.dropped(drops));
        let source = self.source(datagram.peer);
        let continues = portions
            .last()
            .is_some_and(|last| dropped == 0 && last.source == source);
        if !continues {
            let mut portion = Portion::new(source, now());
            if dropped > 0 {
                portion.gaps.push(self.gap(dropped));
            }
            portions.push(portion);
        }
        // An empty datagram is no message.
        if let Some(portion) = portions.last_mut().filter(|_| datagram.original > 0) {
            let raw = &self.buffer[at..at + datagram.kept];
            gather::add_message(portion, raw, datagram.original);
        }
    }

    /// Returns the name of a peer. Most datagrams come from the one before.
    fn source(&mut self, peer: Option<SocketAddr>) -> Arc<str> {
        match &self.last {
            Some((known, name)) if *known == peer => Arc::clone(name),
            Some(_) | None => {
                let name = source(&self.work.input.name, peer);
                self.last = Some((peer, Arc::clone(&name)));
                name
            }
        }
    }

    /// Returns how many datagrams were dropped since this was last asked. What stood in the queue when the kernel's table
    /// was read still says less.
    fn dropped(&mut self, drops: u32) -> u32 {
        let more = drops.wrapping_sub(self.drops);
        if more > u32::MAX / 2 {
            return 0;
        }
        self.drops = drops;
        more
    }

    fn gap(&self, count: u32) -> Gap {
        add(&self.work.feed.tally().kernel_drops, u64::from(count));
        Gap::new(Some(u64::from(count)), Reason::KernelDrop)
    }

    /// Looks whether the kernel has dropped something behind the last datagram.
    async fn look(&mut self) -> Result<(), InputError> {
        if !std::mem::take(&mut self.is_busy) {
            return Ok(());
        }
        let Some(drops) = self.inode.and_then(drops_of) else {
            return Ok(());
        };
        let dropped = self.dropped(drops);
        if dropped > 0 {
            let mut portion = Portion::new(source(&self.work.input.name, None), now());
            portion.gaps.push(self.gap(dropped));
            self.work.feed.offer(portion, PATIENCE).await?;
        }
        Ok(())
    }
}

/// Receives what is there with one call. The headers are made anew for each: the kernel writes into their lengths.
fn receive(socket: &UdpSocket, buffer: &mut [u8], slot: usize) -> io::Result<Vec<Datagram>> {
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffer
        .chunks_exact_mut(slot)
        .map(|chunk| [IoSliceMut::new(chunk)])
        .collect();
    let mut headers =
        MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), Some(cmsg_space!(u32)));
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let received = recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        flags,
        None,
    )?;
    let datagrams = received
        .map(|message| {
            let drops = message.cmsgs().ok().and_then(|mut told| {
                told.find_map(|one| match one {
                    ControlMessageOwned::RxqOvfl(drops) => Some(drops),
                    _ => None,
                })
            });
            Datagram {
                peer: message.address.as_ref().and_then(address),
                kept: message.bytes.min(slot),
                original: message.bytes,
                drops,
            }
        })
        .collect();
    Ok(datagrams)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(four) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((four.ip(), four.port())));
    }
    let six = storage.as_sockaddr_in6()?;
    Some(SocketAddr::from((six.ip(), six.port())))
}

/// Returns how many datagrams the kernel has dropped of a socket, by its table.
fn drops_of(inode: u64) -> Option<u32> {
    ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .into_iter()
        .find_map(|table| drops_in(&fs::read_to_string(table).ok()?, inode))
}

/// Finds the drops of a socket in the kernel's table: the last column, in the row with its inode.
fn drops_in(table: &str, inode: u64) -> Option<u32> {
    const INODE: usize = 9;
    let inode = inode.to_string();
    let row = table
        .lines()
        .find(|row| row.split_whitespace().nth(INODE) == Some(&inode))?;
    let drops: u64 = row.split_whitespace().last()?.parse().ok()?;
    // What comes with a datagram is as narrow.
    Some(drops as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until something is so: the kernel may hand over what was sent a little later.
    async fn until(awaited: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "in vain awaited: {awaited}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn the_kernels_table_tells_the_drops_of_a_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            23: 0100007F:158A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 00000000 12\n\
            24: 0100007F:158B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 471 2 00000000 0\n";
        assert_eq!(drops_in(table, 4711), Some(12));
        assert_eq!(drops_in(table, 471), Some(0));
        assert_eq!(drops_in(table, 47), None);
    }

    #[tokio::test]
    async fn one_call_takes_many_datagrams_with_their_true_length_and_their_sender() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let to = socket.local_addr().expect("an address");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a sender");
        for length in [1, 8, 9, 30_000, 0, 3] {
            sender.send_to(&vec![b'x'; length], to).expect("it leaves");
        }
        let mut buffer = vec![0; 8 * 16];
        let mut datagrams = Vec::new();
        until("six datagrams", || {
            datagrams.extend(receive(&socket, &mut buffer, 8).unwrap_or_default());
            datagrams.len() == 6
        })
        .await;
        let seen: Vec<_> = datagrams
            .iter()
            .map(|one| (one.kept, one.original))
            .collect();
        assert_eq!(seen, [(1, 1), (8, 8), (8, 9), (8, 30_000), (0, 0), (3, 3)]);
        let peer = sender.local_addr().ok();
        assert!(datagrams.iter().all(|one| one.peer == peer));
    }

    #[tokio::test]
    async fn what_the_kernel_drops_is_told_with_the_next_datagram_and_in_its_table() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        setsockopt(&socket, sockopt::RxqOvfl, &1).expect("the kernel counts");
        rx::set_socket_recv_buffer_size(&socket, 4096).expect("a small buffer");
        let to = socket.local_addr().expect("an address");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a sender");
        let sent = 200_u32;
        for _ in 0..sent {
            sender.send_to(&[b'x'; 100], to).expect("it leaves");
        }
        let mut buffer = vec![0; 128 * 256];
        let inode = rustix::fs::fstat(&socket).expect("an inode").st_ino;
        let (mut taken, mut dropped) = (0, 0);
        until("every datagram, taken or dropped", || {
            let more = receive(&socket, &mut buffer, 128).unwrap_or_default();
            taken += u32::try_from(more.len()).expect("few");
            dropped = drops_of(inode).expect("the socket is in the table");
            taken + dropped == sent
        })
        .await;
        assert!(dropped > 0, "all of them fit");
        sender.send_to(b"x", to).expect("it leaves");
        let mut next = Vec::new();
        until("the next datagram", || {
            next = receive(&socket, &mut buffer, 128).unwrap_or_default();
            !next.is_empty()
        })
        .await;
        assert_eq!(next[0].drops, Some(dropped));
    }
}
