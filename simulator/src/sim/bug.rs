//! The deliberate bugs: what a careless shell could do to the same decisions.
//!
//! Each one is built into the simulator's own shells, never into the programs, and must be found.

use clap::ValueEnum;

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// The agent starts the command first and writes down afterwards that it did (J1)
    JournalAfterSpawn,
    /// The agent starts the command although the journal could not be written (J8)
    SpawnWithoutStorage,
    /// The agent remembers orders in memory only: a restart forgets them (J2)
    DedupeInMemory,
    /// The agent forgets an order as soon as it has answered, not when that is confirmed (J2)
    ForgetTooEarly,
    /// The agent runs again after a restart what it finds started (J3)
    RerunAfterRestart,
    /// The agent takes what it finds started for lost, although its warden knows how it ends (J3)
    IgnoreWardens,
    /// The agent says that a command succeeded when it has started (J4)
    AckBeforeFact,
    /// The agent says that it refuses without writing that down (J4)
    RefusalNotJournaled,
    /// The agent writes what belongs together in two transactions
    TwoWrites,
    /// The station takes an answer for the oldest open order of its subject (J5)
    AckMatchedBySubject,
    /// The station sends an order again under a new id (J6)
    NewIdOnResend,
    /// The station gives up what was on its way when its connection broke
    DropOnReconnect,
    /// The station goes on sending an order whose end it has recorded (J7)
    ResendAfterFinal,
    /// The station confirms an end before it has recorded it (J7)
    ConfirmBeforeRecord,
    /// The station publishes an order before it has recorded that it does (J9)
    PublishBeforeRecord,
    /// The station calls expired what it has sent and heard nothing of (J9)
    ExpiryWithoutProof,
    /// The station calls cancelled what it has sent and heard nothing of (J9)
    CancelWithoutProof,
}

impl Bug {
    /// Returns the name it is asked for by, and what it does.
    pub fn describe(self) -> (String, String) {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        let name = value.as_ref().map(|value| value.get_name().to_owned());
        (
            name.unwrap_or_default(),
            help.map(ToString::to_string).unwrap_or_default(),
        )
    }
}
