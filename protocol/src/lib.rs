//! The vocabulary between a station and its agents.
//!
//! This crate names what travels and how it is written down. It cannot do anything: there is no
//! async, no input or output, no clock and no randomness in it. Times, identifiers and dice are
//! handed in by the programs that have them.

pub mod ack;
pub mod body;
pub mod broker;
pub mod cancel;
pub mod checksum;
pub mod cron;
pub mod envelope;
pub mod event;
pub mod filter;
pub mod id;
pub mod limits;
pub mod logs;
pub mod message;
pub mod method;
pub mod name;
pub mod output;
pub mod retry;
pub mod state;
pub mod subject;
pub mod syslog;
pub mod transfer;
pub mod version;

pub use crate::{
    ack::{Ack, Deferral, Outcome},
    body::{Body, BodyError, ShellBody},
    cancel::Cancel,
    envelope::{DecodeError, Envelope, Frame, Order, Origin, Reign, Sealed, Send},
    event::{
        Budget, Confirm, Facts, FaultEvent, Hello, ProcessState, ProcessView, ReportEvent,
        TextEvent, Welcome,
    },
    filter::SubjectFilter,
    id::{Digest, EventId, Generation, InstanceId, JournalId, LedgerId, MessageId},
    message::{Message, Options, Reply, ReplyTo, Target},
    method::Method,
    name::{Domain, MethodName, NameError, NodeName},
    output::Output,
    state::State,
    subject::{Kind, Subject, SubjectError, Uplink},
};
