//! Which of the orders at work are cancelled: the desk writes it, whoever carries one out looks.
//!
//! It is a state and not a message, so a cancellation is not missed that comes between two looks.
//! Only orders at work have a place in it; one that is cancelled just before is cancelled again,
//! because the station repeats itself until the order is over.

use std::{collections::BTreeMap, future::Future};

use tokio::sync::watch;

use crate::journal::{Revoked, Ticket};

/// Which of the orders at work are cancelled.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    board: watch::Sender<Board>,
}

#[derive(Debug, Default)]
struct Board {
    /// Rises with every place given, so that nobody gives up the place of his successor.
    last: u64,
    places: BTreeMap<Ticket, Place>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    revoked: Option<Revoked>,
}

/// An order's place among those at work, given up when dropped.
#[derive(Debug)]
pub struct Attention {
    board: watch::Sender<Board>,
    ticket: Ticket,
    number: u64,
}

impl Revocations {
    /// Gives an order that is taken to work a place.
    pub fn attend(&self, ticket: Ticket) -> Attention {
        let mut number = 0;
        self.board.send_if_modified(|board| {
            board.last += 1;
            number = board.last;
            let revoked = None;
            board.places.insert(ticket, Place { number, revoked });
            // Nobody waits for this.
            false
        });
        Attention {
            board: self.board.clone(),
            ticket,
            number,
        }
    }

    /// Tells whoever is at work on an order that it is cancelled. The first to say so is remembered.
    pub fn revoke(&self, ticket: Ticket, revoked: &Revoked) {
        self.board
            .send_if_modified(|board| match board.places.get_mut(&ticket) {
                Some(place) if place.revoked.is_none() => {
                    place.revoked = Some(revoked.clone());
                    true
                }
                Some(_) | None => false,
            });
    }
}

impl Attention {
    /// Returns who cancelled the order, if anybody did.
    pub fn revoked(&self) -> Option<Revoked> {
        self.board
            .borrow()
            .places
            .get(&self.ticket)
            .and_then(|place| place.revoked.clone())
    }

    /// Returns once the order is cancelled; outlives this value, and then never does.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut board, ticket) = (self.board.subscribe(), self.ticket);
        async move {
            let is_revoked = |board: &Board| {
                let place = board.places.get(&ticket);
                place.is_some_and(|place| place.revoked.is_some())
            };
            if board.wait_for(is_revoked).await.is_err() {
                std::future::pending().await
            }
        }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.board.send_if_modified(|board| {
            let place = board.places.get(&self.ticket);
            if place.is_some_and(|place| place.number == self.number) {
                board.places.remove(&self.ticket);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn by(name: &str) -> Revoked {
        Revoked {
            by: name.to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn only_the_order_meant_is_told_and_the_first_word_counts() {
        let revocations = Revocations::default();
        let (first, second) = (revocations.attend(Ticket(1)), revocations.attend(Ticket(2)));
        let waiting = tokio::spawn(first.wait());
        revocations.revoke(Ticket(1), &by("ann"));
        revocations.revoke(Ticket(1), &by("bob"));
        waiting.await.expect("it is told");
        // Whoever looks late learns it too.
        first.wait().await;
        assert_eq!(first.revoked(), Some(by("ann")));
        assert_eq!(second.revoked(), None);
    }

    #[test]
    fn a_place_ends_with_its_owner_and_not_with_the_one_before() {
        let revocations = Revocations::default();
        revocations.revoke(Ticket(1), &by("ann"));
        let old = revocations.attend(Ticket(1));
        assert_eq!(old.revoked(), None, "nobody was at work on it");
        let new = revocations.attend(Ticket(1));
        drop(old);
        revocations.revoke(Ticket(1), &by("ann"));
        assert_eq!(new.revoked(), Some(by("ann")));
        drop(new);
        assert!(revocations.board.borrow().places.is_empty());
    }
}
