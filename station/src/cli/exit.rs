//! The exit codes of the operators' contract (design section 9), computed from what is known.

use std::process::ExitCode;

use steward_protocol::State;

use super::{client::ClientError, render::OutputClosed};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything asked for is so.
    Success,
    /// 1: anything not named below.
    Other,
    /// 2: the program was not called as it wants to be.
    Usage,
    /// 3: every delivery is final, some did not succeed.
    NotSucceeded,
    /// 4: some delivery was not final when waiting ended.
    NotFinal,
    /// 5: nothing was accepted.
    NothingAccepted,
    /// 6: station or broker is out of reach.
    OutOfReach,
}

impl Exit {
    /// Returns the number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotSucceeded => 3,
            Self::NotFinal => 4,
            Self::NothingAccepted => 5,
            Self::OutOfReach => 6,
        }
    }

    /// Returns the code of a command whose targets are in these states; without any, there was no target.
    pub(crate) fn of_states(states: impl IntoIterator<Item = State>) -> Self {
        states
            .into_iter()
            .map(|state| match state {
                State::Succeeded => Self::Success,
                state if state.is_final() => Self::NotSucceeded,
                _ => Self::NotFinal,
            })
            .max_by_key(|exit| exit.code())
            .unwrap_or(Self::NothingAccepted)
    }

    /// Returns the code of a command that ended with `error`.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<ClientError>() {
            return match error {
                ClientError::Unreachable { .. } | ClientError::Lost { .. } => Self::OutOfReach,
                ClientError::Answer { status: 422, .. } => Self::NothingAccepted,
                ClientError::Answer { .. } | ClientError::Foreign { .. } => Self::Other,
            };
        }
        match error.downcast_ref::<Misuse>() {
            Some(_) => Self::Usage,
            None => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The program was not called as it wants to be, in a way its parser cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// Returns what to say about an error; nothing where the reader of the output simply left.
pub(crate) fn explain(error: &anyhow::Error) -> Option<String> {
    if error.is::<OutputClosed>() {
        return None;
    }
    let speaks_for_itself = error.is::<Misuse>()
        || matches!(
            error.downcast_ref::<ClientError>(),
            Some(ClientError::Answer { .. })
        );
    Some(if speaks_for_itself {
        format!("error: {error:#}")
    } else {
        format!("error: failed to {error:#}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_command_follows_from_its_deliveries() {
        use State::*;
        for (states, expected) in [
            (&[][..], 5),
            (&[Succeeded], 0),
            (&[Succeeded, Succeeded], 0),
            (&[Succeeded, Failed], 3),
            (&[TimedOut], 3),
            (&[Cancelled], 3),
            (&[Rejected], 3),
            (&[Expired], 3),
            (&[Interrupted, Succeeded], 3),
            (&[Accepted], 4),
            (&[Succeeded, Sent], 4),
            (&[Failed, Received], 4),
            (&[Running, Failed], 4),
            (&[Deferred], 4),
            (&[Unknown, Succeeded, Failed], 4),
        ] {
            let exit = Exit::of_states(states.iter().copied());
            assert_eq!(exit.code(), expected, "{states:?}");
        }
    }

    #[test]
    fn the_code_of_an_error_is_found_under_its_context() {
        let wrapped = anyhow::Error::new(Misuse("no".to_owned())).context("do it");
        assert_eq!(Exit::of_error(&wrapped), Exit::Usage);
        assert_eq!(Exit::of_error(&anyhow::anyhow!("other")), Exit::Other);
        assert_eq!(explain(&OutputClosed.into()), None);
    }
}
