//! What is counted of the faults that a schedule saw.

/// A kind of fault, or of something that follows from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A frame was lost.
    Drop,
    /// A frame came twice.
    Double,
    /// A frame came seconds late, behind others.
    Late,
    /// A frame vanished in a cut nobody was told of.
    Cut,
    /// A frame was handed to a client that was not connected.
    NotConnected,
    /// The broker said that nobody listens.
    NoResponders,
    /// A frame reached a machine that was down.
    Nobody,
    /// The station lost the broker, and knew.
    StationAway,
    /// An agent lost the broker, and knew.
    HostAway,
    /// The station was killed.
    StationCrash,
    /// An agent was killed.
    AgentCrash,
    /// A command died with its agent.
    ChildKilled,
    /// A warden could not write down how its command ended.
    WardenError,
    /// A host was started again.
    Reboot,
    /// A journal was lost.
    JournalLost,
    /// A write of the ledger failed.
    LedgerError,
    /// A write of a journal failed.
    JournalError,
    /// A wall clock jumped.
    ClockJump,
    /// A second agent of the same name.
    Rival,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Drop,
        Self::Double,
        Self::Late,
        Self::Cut,
        Self::NotConnected,
        Self::NoResponders,
        Self::Nobody,
        Self::StationAway,
        Self::HostAway,
        Self::StationCrash,
        Self::AgentCrash,
        Self::ChildKilled,
        Self::WardenError,
        Self::Reboot,
        Self::JournalLost,
        Self::LedgerError,
        Self::JournalError,
        Self::ClockJump,
        Self::Rival,
    ];

    /// Returns the words it is shown with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "frames dropped",
            Self::Double => "frames doubled",
            Self::Late => "frames late by seconds",
            Self::Cut => "frames lost in silent cuts",
            Self::NotConnected => "frames lost for want of a connection",
            Self::NoResponders => "no responders",
            Self::Nobody => "frames to a machine that was down",
            Self::StationAway => "station without broker",
            Self::HostAway => "agent without broker",
            Self::StationCrash => "station crashes",
            Self::AgentCrash => "agent crashes",
            Self::ChildKilled => "commands killed with their agent",
            Self::WardenError => "ends that could not be written",
            Self::Reboot => "host reboots",
            Self::JournalLost => "journals lost",
            Self::LedgerError => "ledger writes failed",
            Self::JournalError => "journal writes failed",
            Self::ClockJump => "wall clock jumps",
            Self::Rival => "second agents of one name",
        }
    }
}

/// How often each kind happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally([u64; Kind::ALL.len()]);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// Returns how often `kind` happened.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Returns how often anything happened.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds what another schedule saw.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}
