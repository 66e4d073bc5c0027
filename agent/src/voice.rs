//! Says things to the station: answers, hellos, faults. Knows their subjects and their frames.

use std::sync::Arc;

use steward_protocol::{
    Ack, Domain, Frame, Hello, InstanceId, JournalId, Kind, LedgerId, Method, NodeName, Order,
    Origin, ReportEvent, Subject, Uplink, checksum,
    envelope::{Body, EncodeError},
    transfer::{Chunk, Packet, Want},
    version,
};
use tokio::sync::watch;

use crate::{
    bus::{Bus, SendError},
    counters::{Counter, Counters},
    journal::spool::Notice,
    supervisor::pulse,
};

/// Whom this start of the agent obeys, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footing {
    /// The ledger that welcomed this start, and its reign; none before the first welcome.
    pub welcomed: Option<(LedgerId, u64)>,
    /// The connection on which the last welcome arrived.
    pub generation: u64,
}

/// Says things to the station.
#[derive(Debug, Clone)]
pub struct Voice {
    /// The line to the broker.
    pub bus: Bus,
    /// This node.
    pub node: NodeName,
    /// Its station.
    pub station: NodeName,
    /// This start.
    pub instance: InstanceId,
    /// Its journal.
    pub journal_id: JournalId,
    /// Whom it obeys.
    pub footing: watch::Receiver<Footing>,
    /// Where it is counted when nobody can hear.
    pub counters: Arc<Counters>,
}

/// Why something was not said.
#[derive(Debug, thiserror::Error)]
enum NotSaid {
    #[error("write a frame: it {0}")]
    Encode(EncodeError),
    #[error(transparent)]
    Send(SendError),
}

impl Voice {
    /// Says how an order of `domain` stands. What is not heard is said again by the courier.
    pub async fn ack(&self, domain: &Domain, mut ack: Ack) {
        ack.fit(self.bus.answer_limit());
        tracing::debug!(id = %ack.id, state = %ack.state, "answering");
        self.say(Method::Ack, domain.clone(), ack).await;
    }

    /// Says hello.
    pub async fn hello(&self, hello: Hello) {
        self.say(Method::Hello, fixed("node"), hello).await;
    }

    /// Tells the station what it is to know. What is not heard is said again by the courier.
    pub async fn tell(&self, notice: Notice) {
        match notice {
            Notice::Fault(fault) => {
                let domain = match &fault.subject {
                    Some(subject) => subject.domain.clone(),
                    None => fixed("agent"),
                };
                self.say(Method::Fault, domain, fault).await;
            }
            Notice::Text(text) => {
                self.say(Method::Textlogging, text.domain.clone(), text)
                    .await;
            }
            Notice::Report(report) => self.report(*report).await,
        }
    }

    async fn report(&self, mut report: ReportEvent) {
        // The order takes its share of the frame; there is room for both.
        let room = self
            .bus
            .answer_limit()
            .saturating_sub(report.order.get().len());
        report.ack.fit(room);
        let domain = match serde_json::from_str::<Order>(report.order.get()) {
            Ok(order) => order.subject.domain,
            Err(_) => fixed("agent"),
        };
        self.say(Method::Report, domain, report).await;
    }

    /// Says what is wanted of a transfer. It is said again while nothing comes.
    pub async fn want(&self, domain: &Domain, want: Want) {
        self.say(Method::Want, domain.clone(), want).await;
    }

    /// Says a chunk of a transfer. What does not arrive is asked for again.
    pub async fn chunk(&self, domain: &Domain, chunk: Chunk, bytes: &[u8]) {
        let subject = self.uplink(Method::Output, domain.clone());
        let said = match Packet::encode(self.origin(), chunk, bytes) {
            Ok(packet) => self.bus.send(&subject, packet).await.map_err(NotSaid::Send),
            Err(error) => Err(NotSaid::Encode(error)),
        };
        self.note(said);
    }

    /// Says a batch of log records. What is not kept is sent again.
    ///
    /// # Errors
    ///
    /// Fails when nobody can hear it.
    pub async fn batch(&self, domain: &Domain, payload: Vec<u8>) -> Result<(), SendError> {
        let subject = self.uplink(Method::Syslogforwarding, domain.clone());
        let said = self.bus.send(&subject, payload).await;
        if said.is_err() {
            self.counters.count(Counter::NotSent);
        }
        said
    }

    async fn say<B: Body>(&self, method: Method, domain: Domain, body: B) {
        let said = self.try_say(method, domain, body).await;
        // Many answers one after the other are progress, however slow the link.
        pulse::beat();
        self.note(said);
    }

    fn note(&self, said: Result<(), NotSaid>) {
        if let Err(error) = said {
            self.counters.count(Counter::NotSent);
            tracing::debug!(%error, "not said now");
        }
    }

    fn uplink(&self, method: Method, domain: Domain) -> Uplink {
        Subject::new(self.station.clone(), Kind::Event, method, domain)
            .from_sender(self.node.clone())
    }

    fn origin(&self) -> Origin {
        let welcomed = self.footing.borrow().welcomed;
        Origin {
            v: version::CURRENT,
            instance: self.instance,
            journal_id: self.journal_id,
            ledger_id: welcomed.map(|(ledger_id, _)| ledger_id),
        }
    }

    async fn try_say<B: Body>(
        &self,
        method: Method,
        domain: Domain,
        body: B,
    ) -> Result<(), NotSaid> {
        let subject = self.uplink(method, domain);
        let send = self.origin();
        let frame = Frame { send, body }.encode().map_err(NotSaid::Encode)?;
        self.bus
            .send(&subject, checksum::append(frame))
            .await
            .map_err(NotSaid::Send)
    }
}

/// Returns a domain that is written in this program.
pub(crate) fn fixed(text: &'static str) -> Domain {
    text.parse()
        .expect("the domains written in this program are tokens")
}
