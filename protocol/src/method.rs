//! The closed set of methods a node or a station knows.

use std::str::FromStr;

use crate::name::MethodName;

/// A known method: one variant per functionality, so that a `match` over it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Runs a command of the operating system.
    Shellcommand,
    /// Says that a node is alive and what it is: as an event unasked, as a command on request.
    Hello,
    /// The station's answer to a hello.
    Welcome,
    /// What a node says about an order.
    Ack,
    /// The station's word that an answer is stored, so that the node may forget it.
    Confirm,
    /// A fault a node saw in itself, and what was decided about it.
    Fault,
    /// The cancellation of an order.
    Cancel,
    /// Answers from the loop of the process that would do the work.
    Ping,
    /// Puts content at a path of the node.
    Filewrite,
    /// Adds content to the end of a file of the node.
    Fileappend,
    /// Brings a file of the node to the station.
    Filefetch,
    /// Brings a file of the station to the node.
    Filesend,
    /// Follows a file of the node, line by line.
    Tailfile,
    /// Fetches an address from the node.
    Httpget,
    /// Lists, stops and starts the node's processes.
    Processes,
    /// Makes the node run a message again and again.
    Schedule,
    /// Adds text to the log the station keeps for the node.
    Textlogging,
    /// What came of an order that a node gave itself: of a schedule, or at its start.
    Report,
    /// Chunks of what a node sends: outputs and files.
    Output,
    /// What a receiver of chunks wants.
    Want,
    /// Chunks of what a station sends: files.
    Content,
    /// Batches of log records, from a node to its station.
    Syslogforwarding,
    /// The station's word on which of them it has durably.
    Kept,
}

impl Method {
    /// Every method, in the order of their introduction.
    pub const ALL: [Self; 23] = [
        Self::Shellcommand,
        Self::Hello,
        Self::Welcome,
        Self::Ack,
        Self::Confirm,
        Self::Fault,
        Self::Cancel,
        Self::Ping,
        Self::Filewrite,
        Self::Fileappend,
        Self::Filefetch,
        Self::Filesend,
        Self::Tailfile,
        Self::Httpget,
        Self::Processes,
        Self::Schedule,
        Self::Textlogging,
        Self::Report,
        Self::Output,
        Self::Want,
        Self::Content,
        Self::Syslogforwarding,
        Self::Kept,
    ];

    /// The methods an operator may ask a node for.
    pub const ORDERABLE: [Self; 12] = [
        Self::Shellcommand,
        Self::Hello,
        Self::Ping,
        Self::Filewrite,
        Self::Fileappend,
        Self::Filefetch,
        Self::Filesend,
        Self::Tailfile,
        Self::Httpget,
        Self::Processes,
        Self::Schedule,
        Self::Textlogging,
    ];

    /// Returns the token on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shellcommand => "shellcommand",
            Self::Hello => "hello",
            Self::Welcome => "welcome",
            Self::Ack => "ack",
            Self::Confirm => "confirm",
            Self::Fault => "fault",
            Self::Cancel => "cancel",
            Self::Ping => "ping",
            Self::Filewrite => "filewrite",
            Self::Fileappend => "fileappend",
            Self::Filefetch => "filefetch",
            Self::Filesend => "filesend",
            Self::Tailfile => "tailfile",
            Self::Httpget => "httpget",
            Self::Processes => "processes",
            Self::Schedule => "schedule",
            Self::Textlogging => "textlogging",
            Self::Report => "report",
            Self::Output => "output",
            Self::Want => "want",
            Self::Content => "content",
            Self::Syslogforwarding => "syslogforwarding",
            Self::Kept => "kept",
        }
    }

    /// Returns the method's name as a token.
    pub fn name(self) -> MethodName {
        MethodName::from_str(self.as_str()).expect("every method's text is a token, see the test")
    }

    /// Returns the method called `name`, if there is one.
    pub fn from_name(name: &MethodName) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_own_name() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(&method.name()), Some(method));
        }
    }
}
