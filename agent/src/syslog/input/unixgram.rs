//! Datagrams over a socket in the file system, as `/dev/log`: one datagram, one message. Whoever sends waits while the
//! socket's queue is full, so it is emptied whatever happens.

use std::{io, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use rustix::net::{RecvFlags, recv};
use tokio::{
    io::Interest,
    net::UnixDatagram,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    InputError, LAST, LOOK, Work, gather,
    place::{self, Kind, Place},
    source, udp,
};
use crate::syslog::{feed::now, route::Tell, spool::Portion};

/// Bytes after which a portion is handed over although more is there.
const PORTION: usize = 64 << 10;

/// How long messages wait for room, and whoever writes to the socket with them.
const PATIENCE: Duration = Duration::from_millis(100);

/// Receives until told to end.
pub(super) async fn run(work: Work, path: PathBuf) -> Result<(), InputError> {
    let listen = || {
        place::clear(&path, Kind::Datagram)?;
        let socket = UnixDatagram::bind(&path)?;
        let place = Place::take(&path, work.input.mode)?;
        Ok((socket, place))
    };
    let (socket, place) = listen().map_err(|error: io::Error| work.listening(error))?;
    udp::raise(&socket, work.input.receive_buffer);
    work.feed.tally().trouble(None);
    let name = source(&work.input.name, None);
    let mut buffer = vec![0; work.input.max_message];
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = work.stop.cancelled() => break,
            ready = socket.readable() => {
                ready.map_err(|error| work.receiving(error))?;
                take(&work, &socket, &mut buffer, &name).await?;
            }
            _ = looks.tick() => work.feed.tell(Tell::Due)?,
        }
    }
    // Nobody finds it any more; what is in the queue is still taken.
    drop(place);
    let deadline = Instant::now() + LAST;
    while Instant::now() < deadline && take(&work, &socket, &mut buffer, &name).await? > 0 {}
    Ok(())
}

/// Takes what is there, at most a portion's worth, and returns how many datagrams that was.
async fn take(
    work: &Work,
    socket: &UnixDatagram,
    buffer: &mut [u8],
    name: &Arc<str>,
) -> Result<usize, InputError> {
    let mut portion = Portion::new(Arc::clone(name), now());
    let mut count = 0;
    while portion.arena.len() < PORTION {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let received = socket.try_io(Interest::READABLE, || {
            Ok(recv(socket.as_fd(), &mut *buffer, flags)?)
        });
        match received {
            Ok((kept, original)) => {
                count += 1;
                if original > 0 {
                    gather::add_message(&mut portion, &buffer[..kept], original);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(work.receiving(error)),
        }
    }
    if !portion.messages.is_empty() {
        work.feed.offer(portion, PATIENCE).await?;
    }
    Ok(count)
}
