//! The delivery machine: one message's way to one node, as a total function of state and event.
//!
//! Pure: it knows nothing of time, ledger or broker. Who observed an event, and when, is recorded
//! around it. After a restart the ledger's events replayed through [`next`] give the state again.

use steward_protocol::State;

/// What can happen to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is being handed to the broker (again).
    Sent,
    /// The node says how it stands.
    Says(State),
    /// The time by which word was due has passed.
    Deadline,
    /// The node's journal is gone: what it knew of this order cannot be learned any more.
    JournalLost,
    /// Somebody asked that it be called off.
    Cancel,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new state.
    To(State),
    /// Nothing new: a repetition, or word that has been overtaken.
    Stay,
}

/// A pair of state and event that cannot occur; somebody has a bug or lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("apply {event:?} to a delivery that is {state}")]
pub struct Impossible {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

/// Returns what follows from `event` in `state` (design section 4.3).
///
/// States are monotone: word that comes twice or out of order merges without effect. A final state
/// never changes. `expired` and `cancelled` are reached by the station alone only from `accepted`,
/// that is without a `sent` record (rule J9).
///
/// # Errors
///
/// Names the pair when it cannot occur.
pub fn next(state: State, event: Event) -> Result<Step, Impossible> {
    use State::{
        Accepted, Cancelled, Deferred, Expired, Failed, Interrupted, Received, Rejected, Running,
        Sent, Succeeded, TimedOut, Unknown,
    };
    match (state, event) {
        (Accepted, Event::Sent) => Ok(Step::To(Sent)),
        (Sent | Received | Running | Deferred | Unknown, Event::Sent) => Ok(Step::Stay),

        // Only the station can be in these states; no node's word leads there.
        (_, Event::Says(Accepted | Sent | Unknown)) => Err(Impossible { state, event }),
        (
            Succeeded | Failed | TimedOut | Cancelled | Rejected | Expired | Interrupted,
            Event::Says(_),
        ) => Ok(Step::Stay),
        (
            Accepted | Sent | Received | Running | Deferred | Unknown,
            Event::Says(
                said @ (Succeeded | Failed | TimedOut | Cancelled | Rejected | Expired | Interrupted),
            ),
        ) => Ok(Step::To(said)),
        (Accepted | Sent | Received | Deferred | Unknown, Event::Says(Running)) => {
            Ok(Step::To(Running))
        }
        (Accepted | Sent | Deferred | Unknown, Event::Says(Received)) => Ok(Step::To(Received)),
        (Accepted | Sent, Event::Says(Deferred)) => Ok(Step::To(Deferred)),
        (Running, Event::Says(Received | Running | Deferred))
        | (Received, Event::Says(Received | Deferred))
        // A deferral says nothing about an earlier transmission, so the doubt stays.
        | (Deferred | Unknown, Event::Says(Deferred)) => Ok(Step::Stay),

        (Accepted, Event::Deadline) => Ok(Step::To(Expired)),
        (Sent | Received | Running | Deferred, Event::Deadline) => Ok(Step::To(Unknown)),
        (Unknown, Event::Deadline) | (Accepted, Event::JournalLost) => Ok(Step::Stay),
        (Sent | Received | Running | Deferred | Unknown, Event::JournalLost) => {
            Ok(Step::To(Interrupted))
        }

        (Accepted, Event::Cancel) => Ok(Step::To(Cancelled)),
        // Only the node can tell what became of something that was ever sent.
        (Sent | Received | Running | Deferred | Unknown, Event::Cancel) => Ok(Step::Stay),

        (
            Succeeded | Failed | TimedOut | Cancelled | Rejected | Expired | Interrupted,
            Event::Sent | Event::Deadline | Event::JournalLost | Event::Cancel,
        ) => Err(Impossible { state, event }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_event() -> Vec<Event> {
        let said = State::ALL.into_iter().map(Event::Says);
        let own = [
            Event::Sent,
            Event::Deadline,
            Event::JournalLost,
            Event::Cancel,
        ];
        own.into_iter().chain(said).collect()
    }

    #[test]
    fn a_final_state_never_changes() {
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            for event in every_event() {
                assert!(
                    !matches!(next(state, event), Ok(Step::To(_))),
                    "{state} {event:?}"
                );
            }
        }
    }

    #[test]
    fn only_a_nodes_word_leads_to_success() {
        for state in State::ALL {
            for event in every_event() {
                if next(state, event) == Ok(Step::To(State::Succeeded)) {
                    assert_eq!(event, Event::Says(State::Succeeded));
                }
            }
        }
    }

    #[test]
    fn without_the_nodes_word_expired_needs_that_nothing_was_ever_sent() {
        for state in State::ALL {
            if next(state, Event::Deadline) == Ok(Step::To(State::Expired)) {
                assert_eq!(state, State::Accepted);
            }
        }
    }

    #[test]
    fn without_the_nodes_word_cancelled_needs_that_nothing_was_ever_sent() {
        for state in State::ALL {
            let step = next(state, Event::Cancel);
            assert_eq!(
                step == Ok(Step::To(State::Cancelled)),
                state == State::Accepted,
                "{state}"
            );
            assert_eq!(step.is_err(), state.is_final(), "{state}");
        }
    }

    #[test]
    fn words_in_any_order_end_in_the_same_state() {
        let words = [
            State::Received,
            State::Running,
            State::Failed,
            State::Deferred,
        ];
        for first in words {
            for second in words {
                for third in words {
                    let mut state = State::Sent;
                    for word in [first, second, third, State::Failed] {
                        if let Step::To(to) = next(state, Event::Says(word)).expect("possible") {
                            state = to;
                        }
                    }
                    assert_eq!(state, State::Failed, "{first} {second} {third}");
                }
            }
        }
    }

    #[test]
    fn a_pair_that_cannot_occur_is_named() {
        let error = next(State::Succeeded, Event::Sent).expect_err("no resend after the end");
        assert_eq!(
            error.to_string(),
            "apply Sent to a delivery that is succeeded"
        );
    }
}
