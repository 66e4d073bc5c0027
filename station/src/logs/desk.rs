//! The desk: takes batches from the bus, throws out what is none, and hands the rest to the writer.
//! It tells the loop what an operator should know, and has old segments removed.

use std::{collections::HashMap, io, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Kind, LedgerId, Method, SubjectError, Uplink,
    logs::{Batch, BatchError},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Logs,
    census::MAX_DOMAINS,
    name::Line,
    retain::{self, Limits},
    store::Arrived,
    writer::{Mail, Report, Writer},
};
use crate::{
    bus::{self, Batches, Bus},
    courier::FaultRecord,
    station::StationHandle,
};

/// Batches waiting for the writer: 32 MiB at most. While it is busy, what comes waits in the queues of
/// its senders.
const WAITING: usize = 64;

/// Batches taken from the bus at a time.
const TAKEN: usize = 32;

/// Reports waiting to be told.
const REPORTS: usize = 64;

/// How often old segments are looked for.
const TIDY: Duration = Duration::from_secs(60);

/// What logs need to know.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The way to the broker.
    pub bus: Bus,
    /// Which ledger speaks.
    pub ledger_id: LedgerId,
    /// In which reign.
    pub epoch: u64,
    /// What is kept.
    pub limits: Limits,
}

/// A batch that means nothing here.
#[derive(Debug, thiserror::Error)]
enum Garbage {
    #[error("the subject {0}")]
    Subject(SubjectError),
    #[error("nobody says {0} to a station")]
    Method(String),
    #[error("the batch {0}")]
    Batch(BatchError),
    #[error("the batch is of another domain than its subject")]
    Domain,
}

impl Garbage {
    /// Returns the name it is counted under.
    fn kind(&self) -> &'static str {
        match self {
            Self::Subject(_) => "garbage_subject",
            Self::Method(_) => "garbage_method",
            Self::Batch(_) | Self::Domain => "garbage_batch",
        }
    }
}

/// Takes batches in.
#[derive(Debug)]
pub struct Desk {
    logs: Logs,
    batches: Batches,
    mail: mpsc::Sender<Mail>,
    reports: mpsc::Receiver<Report>,
    writer: std::thread::JoinHandle<()>,
    limits: Limits,
    warned: bool,
}

/// Begins the writer, and returns the desk.
///
/// # Errors
///
/// Fails when there can be no thread.
pub fn open(logs: Logs, ground: Ground, batches: Batches) -> io::Result<Desk> {
    let (mail, to_write) = mpsc::channel(WAITING);
    let (report, reports) = mpsc::channel(REPORTS);
    let limits = ground.limits;
    let writer = Writer {
        ground,
        logs: logs.clone(),
        mail: to_write,
        reports: report,
        refused: HashMap::new(),
    };
    Ok(Desk {
        logs,
        batches,
        mail,
        reports,
        writer: writer.start()?,
        limits,
        warned: false,
    })
}

impl Desk {
    /// Runs until told to stop, or the writer is gone.
    pub async fn run(mut self, station: StationHandle, stop: CancellationToken) {
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidying: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                arrived = self.batches.take(TAKEN) => if !self.take(arrived).await {
                    break;
                },
                Some(report) = self.reports.recv() => tell(&station, report).await,
                _ = tidy.tick() => if tidying.as_ref().is_none_or(JoinHandle::is_finished) {
                    tidying = Some(self.tidy());
                },
            }
        }
        // The writer ends when nobody can write to it any more, with all that it was given.
        drop(self.mail);
        let writer = self.writer;
        let ended = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
        if !matches!(ended, Ok(true)) {
            tracing::error!("the writer of logs ended badly");
        }
    }

    /// Hands over what is understood. Returns whether the writer is there.
    async fn take(&mut self, arrived: Vec<bus::Batch>) -> bool {
        for bus::Batch { subject, payload } in arrived {
            match tokio::task::block_in_place(|| decode(&subject, payload)) {
                Ok(arrived) if self.logs.instance(&arrived.line.node).is_none() => {
                    // It would not believe the answer. It sends it again when it has been welcomed.
                    self.logs.count_stranger();
                }
                Ok(arrived) => {
                    if self
                        .mail
                        .send(Mail::Batch(Box::new(arrived)))
                        .await
                        .is_err()
                    {
                        return false;
                    }
                }
                Err(garbage) => self.count(&subject, &garbage),
            }
        }
        true
    }

    fn count(&mut self, subject: &str, garbage: &Garbage) {
        self.batches
            .offend(bus::sender_of(subject.as_bytes()), garbage.kind());
        if !std::mem::replace(&mut self.warned, true) {
            let subject: String = subject.escape_default().take(200).collect();
            tracing::warn!(subject, reason = %garbage, "a batch of logs was not understood; more are only counted");
        }
    }

    /// Removes what is too old or too much; begins to close what will be.
    fn tidy(&self) -> JoinHandle<()> {
        let (logs, limits, mail) = (self.logs.clone(), self.limits, self.mail.downgrade());
        tokio::task::spawn_blocking(move || {
            let now = std::time::SystemTime::now();
            for (line, number) in retain::tidy(logs.files(), limits, now) {
                // Whoever is gone closes nothing; a busy writer is asked again next time.
                if let Some(mail) = mail.upgrade() {
                    drop(mail.try_send(Mail::Close(line, number)));
                }
            }
        })
    }
}

async fn tell(station: &StationHandle, report: Report) {
    let at = Timestamp::now();
    let fault = match report {
        Report::Trouble(text) => FaultRecord {
            kind: "logs_storage".to_owned(),
            detail: format!("logs cannot be stored: {text}"),
            verdict: "nothing is confirmed, so that nodes keep it; it goes on by itself".to_owned(),
            ..FaultRecord::at(at, None)
        },
        Report::Lost(Line { node, domain }) => FaultRecord {
            kind: "logs_lost".to_owned(),
            subject: Some(format!("{}.{}", Method::Syslogforwarding.as_str(), domain)),
            detail: format!(
                "the node does not know what it had logged for {domain} before: its spool was lost, or began anew"
            ),
            verdict:
                "what comes now is stored; `steward logs --gaps` shows where something is missing"
                    .to_owned(),
            ..FaultRecord::at(at, Some(node))
        },
        Report::Refused(Line { node, domain }) => FaultRecord {
            kind: "logs_domains".to_owned(),
            subject: Some(format!("{}.{}", Method::Syslogforwarding.as_str(), domain)),
            detail: format!(
                "{node} has logs of {MAX_DOMAINS} domains here, and no node may have more; {domain} is one that is too many"
            ),
            verdict: "nothing of it is stored or confirmed, so that the node keeps it; its other domains go on".to_owned(),
            ..FaultRecord::at(at, Some(node))
        },
    };
    if station.fault(fault).await.is_err() {
        tracing::debug!("nobody is there any more to be told");
    }
}

/// Returns what a batch is, all its checksums checked.
fn decode(subject: &str, payload: Vec<u8>) -> Result<Arrived, Garbage> {
    let Uplink { address, sender }: Uplink = subject.parse().map_err(Garbage::Subject)?;
    let is_batch = Method::from_name(&address.method) == Some(Method::Syslogforwarding);
    if address.kind != Kind::Event || !is_batch {
        return Err(Garbage::Method(format!(
            "{}.{}",
            address.kind, address.method
        )));
    }
    let batch = Batch::read(&payload).map_err(Garbage::Batch)?;
    if batch.header().domain != address.domain {
        return Err(Garbage::Domain);
    }
    let header = batch.into_header();
    let line = Line {
        node: sender,
        domain: address.domain,
    };
    Ok(Arrived {
        line,
        header,
        payload,
    })
}
