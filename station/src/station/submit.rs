//! Accepting: submissions become messages with an id, a place and a target set, in one commit.
//!
//! A submission is accepted whole or refused whole. What was accepted before — by the inbox's claim,
//! or by an explicit id with the same content — is recognised and not run again.

use std::{collections::HashMap, sync::Arc};

use jiff::SignedDuration;
use steward_protocol::{
    Body, Digest, Message, MessageId, NodeName, Order, Sealed, Subject, Target, limits::MAX_ORDER,
};
use uuid::Uuid;

use super::{AcceptedMessage, Request, Station, StationHandle, Waiting, chain, moment, wall};
use crate::{
    courier::{Accepted, Action, Addressee},
    inbox::{AcceptError, Submission, content_digest},
    store::{Known, StoreError},
    transfer::files,
    view::{Problem, Receipt, ReceiptLine},
};

/// What a frame needs around its order, in bytes: the header and the broker's own.
const FRAME_OVERHEAD: usize = 4096;

/// What has been planned for this commit and is not in the ledger yet.
#[derive(Default)]
struct Planned {
    by_id: HashMap<MessageId, Known>,
    by_intake: HashMap<Uuid, Vec<Known>>,
}

/// Where in its submission, and in the ledger, a message stands.
struct Place<'a> {
    index: usize,
    submission: &'a Submission,
    pos: u64,
    planned: &'a Planned,
    /// Messages of the same submission that came before it.
    new: HashMap<MessageId, Known>,
    /// Deliveries the submission asks for so far.
    deliveries: usize,
}

/// Where a message comes from, and its place in the ledger.
pub(super) struct Provenance<'a> {
    pub(super) pos: u64,
    pub(super) source: &'a str,
    pub(super) submitted_by: &'a str,
    pub(super) intake: Option<Uuid>,
    pub(super) retry_of: Option<MessageId>,
}

/// One message, judged.
enum Verdict {
    New(AcceptedMessage),
    Recognised(Known),
}

impl StationHandle {
    /// Stores a submission and begins to deliver it. Returns only when it is durable.
    ///
    /// Submissions are taken in the order in which this was first polled; those with files to be sent
    /// among themselves, which is enough: orders of different methods are in no order.
    ///
    /// # Errors
    ///
    /// `Rejected` when it can never be accepted, `Unavailable` when it may be tried again.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, AcceptError> {
        let sends = |message: &Message| matches!(message.body, Body::Send(_));
        if !submission.messages.iter().any(sends) {
            return self.accept(submission).await;
        }
        let _turn = self.pinning.lock().await;
        let submission = self.pinned(submission).await?;
        self.accept(submission).await
    }

    async fn accept(&self, submission: Submission) -> Result<Receipt, AcceptError> {
        self.change(|answer| Request::Submit {
            submission: Box::new(submission),
            answer,
        })
        .await
    }

    /// Writes size and digest of the files to be sent into their messages.
    async fn pinned(&self, mut submission: Submission) -> Result<Submission, AcceptError> {
        let state_dir = self.state_dir.clone();
        // Files are read here, not in the loop.
        let pinned = tokio::task::spawn_blocking(move || {
            files::pin(&state_dir, &mut submission.messages).map(|()| submission)
        });
        match pinned.await {
            Ok(Ok(submission)) => Ok(submission),
            Ok(Err(problems)) => Err(AcceptError::Rejected(problems)),
            Err(error) => Err(AcceptError::Unavailable(error.to_string())),
        }
    }
}

impl Station {
    /// Accepts what can be accepted of `submissions` in one commit, then answers everybody.
    pub(super) async fn accept(&mut self, submissions: Vec<Waiting>) {
        if submissions.is_empty() {
            return;
        }
        let mut planned = Planned::default();
        let mut actions = Vec::new();
        let mut answers = Vec::new();
        for (submission, answer) in submissions {
            // Sealing an order for every node takes a while for a large fan-out.
            let result =
                tokio::task::block_in_place(|| self.plan(&submission, &mut planned, &mut actions));
            answers.push((answer, result));
        }
        let committed = self.commit(&actions).await;
        for (answer, result) in answers {
            let result = match (&committed, result) {
                (Err(text), Ok(_)) => Err(AcceptError::Unavailable(text.clone())),
                (_, result) => result,
            };
            // Whoever submitted may have gone away; the inbox's claim or an explicit id finds it again.
            drop(answer.send(result));
        }
        if committed.is_ok() {
            self.act(actions);
        }
    }

    fn plan(
        &mut self,
        submission: &Submission,
        planned: &mut Planned,
        actions: &mut Vec<Action>,
    ) -> Result<Receipt, AcceptError> {
        if let Some(intake) = submission.intake {
            let known = match planned.by_intake.get(&intake) {
                Some(known) => known.clone(),
                None => self.store.find_intake(intake).map_err(unavailable)?,
            };
            if !known.is_empty() {
                return Ok(Receipt {
                    messages: known.into_iter().map(recognised).collect(),
                });
            }
        }
        let mut verdicts = Vec::new();
        let mut problems = Vec::new();
        let mut place = Place {
            index: 0,
            submission,
            pos: self.courier.next_pos(),
            planned,
            new: HashMap::new(),
            deliveries: 0,
        };
        for (index, message) in submission.messages.iter().enumerate() {
            place.index = index;
            match self.judge(message, &mut place)? {
                Ok(Verdict::New(accepted)) => {
                    place.pos += 1;
                    place.new.insert(accepted.id, known(&accepted));
                    verdicts.push(Verdict::New(accepted));
                }
                Ok(Verdict::Recognised(known)) => verdicts.push(Verdict::Recognised(known)),
                Err(mut found) => problems.append(&mut found),
            }
        }
        if !problems.is_empty() {
            return Err(AcceptError::Rejected(problems));
        }
        Ok(self.take(submission, verdicts, planned, actions))
    }

    /// Makes sure that there is room for the submission's deliveries so far, before they are composed.
    pub(super) fn check_room(&self, wanted: usize) -> Result<(), AcceptError> {
        let (open, limit) = (self.courier.open(), self.settings.max_open);
        if wanted > limit {
            let reason = format!(
                "it asks for more than {limit} deliveries, the most this station holds open"
            );
            let hint = Some("split it, or raise max_open_deliveries in the station's config");
            return Err(AcceptError::Rejected(vec![problem(
                String::new(),
                reason,
                hint,
            )]));
        }
        if open + wanted > limit {
            return Err(AcceptError::Unavailable(format!(
                "{open} deliveries are open and {wanted} more would exceed the limit of {limit}; wait until some are final"
            )));
        }
        Ok(())
    }

    fn take(
        &mut self,
        submission: &Submission,
        verdicts: Vec<Verdict>,
        planned: &mut Planned,
        actions: &mut Vec<Action>,
    ) -> Receipt {
        let mut lines = Vec::new();
        let mut of_intake = Vec::new();
        for verdict in verdicts {
            match verdict {
                Verdict::Recognised(known) => lines.push(recognised(known)),
                Verdict::New(accepted) => {
                    let known = known(&accepted);
                    planned.by_id.insert(known.id, known.clone());
                    lines.push(ReceiptLine {
                        id: known.id,
                        name: known.name.clone(),
                        nodes: known.nodes.clone(),
                        recognised: false,
                        retry_of: None,
                        held: Vec::new(),
                    });
                    of_intake.push(known);
                    actions.extend(self.courier.accept(accepted, moment(self.born)));
                }
            }
        }
        if let Some(intake) = submission.intake {
            planned.by_intake.insert(intake, of_intake);
        }
        Receipt { messages: lines }
    }

    /// Judges one message: new, known already, or wrong in one or more ways.
    fn judge(
        &self,
        message: &Message,
        place: &mut Place<'_>,
    ) -> Result<Result<Verdict, Vec<Problem>>, AcceptError> {
        let index = place.index;
        let content = content_digest(message);
        if let Some(id) = message.id {
            let earlier = match place.planned.by_id.get(&id).or_else(|| place.new.get(&id)) {
                Some(known) => Some(known.clone()),
                None => self.store.find(id).map_err(unavailable)?,
            };
            if let Some(known) = earlier {
                return Ok(if known.content == content {
                    Ok(Verdict::Recognised(known))
                } else {
                    Err(vec![other_content(index, id)])
                });
            }
        }
        let nodes = self.courier.resolve(&message.target);
        place.deliveries += nodes.len();
        self.check_room(place.deliveries)?;
        let mut problems = self.check_targets(index, &message.target, &nodes);
        let provenance = Provenance {
            pos: place.pos,
            source: &place.submission.source,
            submitted_by: &place.submission.submitted_by,
            intake: place.submission.intake,
            retry_of: None,
        };
        let accepted = self.compose(message, content, &provenance, nodes);
        match accepted {
            Ok(accepted) if problems.is_empty() => return Ok(Ok(Verdict::New(Arc::new(accepted)))),
            Ok(_) => {}
            Err(reason) => problems.push(problem(
                format!("/{index}"),
                reason,
                Some("send the bulk as a file, or split it"),
            )),
        }
        Ok(Err(problems))
    }

    pub(super) fn check_targets(
        &self,
        index: usize,
        target: &Target,
        nodes: &[NodeName],
    ) -> Vec<Problem> {
        if nodes.is_empty() {
            let reason = match target {
                Target::Labels(labels) if labels.is_empty() => {
                    "no node has been heard yet, so there is nobody to send it to".to_owned()
                }
                Target::Labels(labels) => {
                    let labels: Vec<String> = labels
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    format!("no known node carries the labels {}", labels.join(", "))
                }
                Target::Nodes(_) => "it names no node".to_owned(),
            };
            return vec![problem(
                format!("/{index}/to"),
                reason,
                Some("see `steward node ls -o wide` for nodes and labels"),
            )];
        }
        if nodes.contains(&self.settings.name) {
            let reason = format!(
                "{} is this station itself, which takes no orders",
                self.settings.name
            );
            return vec![problem(
                format!("/{index}/to"),
                reason,
                Some("name a node that has an agent; see `steward node ls`"),
            )];
        }
        let twin = |node: &NodeName| self.courier.twin_of(node).map(|twin| (node.clone(), twin));
        nodes
            .iter()
            .filter_map(twin)
            .map(|(node, twin)| {
                let reason =
                    format!("the node {node} differs only in case from {twin}, which is known");
                problem(
                    format!("/{index}/to"),
                    reason,
                    Some("names are case-sensitive; write the known one"),
                )
            })
            .collect()
    }

    /// Returns the message with the digests of its orders; nothing holds it yet.
    pub(super) fn compose(
        &self,
        message: &Message,
        content: Digest,
        provenance: &Provenance<'_>,
        nodes: Vec<NodeName>,
    ) -> Result<Accepted, String> {
        let accepted_at = wall();
        // In whole milliseconds, as the ledger keeps it: the order's bytes must come out the same again.
        let expires = SignedDuration::from_millis(
            i64::try_from(message.options.expires.as_millis()).unwrap_or(i64::MAX),
        );
        let mut accepted = Accepted {
            pos: provenance.pos,
            id: message.id.unwrap_or_else(|| MessageId(Uuid::now_v7())),
            message: message.clone(),
            content,
            station: self.settings.name.clone(),
            source: provenance.source.to_owned(),
            submitted_by: provenance.submitted_by.to_owned(),
            accepted_at,
            expires_at: accepted_at
                .saturating_add(expires)
                .unwrap_or(jiff::Timestamp::MAX),
            intake: provenance.intake,
            retry_of: provenance.retry_of,
            holds: Vec::new(),
            targets: Vec::new(),
        };
        let limit = MAX_ORDER.min(self.bus.max_payload().saturating_sub(FRAME_OVERHEAD));
        let mut targets = Vec::with_capacity(nodes.len());
        for node in nodes {
            let sealed = order(&accepted, &node)
                .and_then(|order| Sealed::seal(order).map_err(|error| error.to_string()));
            let sealed = sealed.map_err(|text| format!("the order for {node} {text}"))?;
            let bytes = sealed.text().len();
            if bytes > limit {
                return Err(format!(
                    "the order for {node} would be {bytes} bytes long; at most {limit} can travel"
                ));
            }
            targets.push(Addressee {
                node,
                digest: sealed.digest(),
            });
        }
        accepted.targets = targets;
        Ok(accepted)
    }
}

/// Returns the order of `accepted` for `node`, as [`crate::store::Store::order`] returns it later.
fn order(accepted: &Accepted, node: &NodeName) -> Result<Order, String> {
    let message = &accepted.message;
    let body = serde_json::value::to_raw_value(&message.body).map_err(|error| error.to_string())?;
    Ok(Order {
        id: accepted.id,
        from: accepted.station.clone(),
        to: node.clone(),
        subject: Subject {
            node: node.clone(),
            kind: message.kind,
            method: message.method.clone(),
            domain: message.domain.clone(),
        },
        issued_at: accepted.accepted_at,
        expires_at: accepted.expires_at,
        submitted_by: accepted.submitted_by.clone(),
        retry_of: accepted.retry_of,
        timeout_ms: u64::try_from(message.options.timeout.as_millis()).unwrap_or(u64::MAX),
        ordered: message.options.ordered,
        idempotent: message.options.idempotent,
        success_codes: message.options.success_codes.clone(),
        stream: message.options.stream,
        body,
    })
}

fn known(accepted: &Accepted) -> Known {
    Known {
        id: accepted.id,
        name: accepted.message.name.clone(),
        content: accepted.content,
        nodes: accepted
            .targets
            .iter()
            .map(|target| target.node.clone())
            .collect(),
    }
}

fn recognised(known: Known) -> ReceiptLine {
    ReceiptLine {
        id: known.id,
        name: known.name,
        nodes: known.nodes,
        recognised: true,
        retry_of: None,
        held: Vec::new(),
    }
}

fn other_content(index: usize, id: MessageId) -> Problem {
    problem(
        format!("/{index}/id"),
        format!("the id {id} is known with another content"),
        Some("leave the id out for a new request, or repeat the old one unchanged"),
    )
}

pub(super) fn problem(path: String, reason: String, hint: Option<&str>) -> Problem {
    Problem {
        line: None,
        column: None,
        path,
        reason,
        hint: hint.map(str::to_owned),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is a function for map_err"
)]
pub(super) fn unavailable(error: StoreError) -> AcceptError {
    AcceptError::Unavailable(chain(&error))
}
