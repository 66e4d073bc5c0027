//! Calling off and repeating: what an operator asks about messages that are on their way already.
//!
//! As with submissions, what is decided is durable before anything follows from it, the answer included.

use std::sync::Arc;

use steward_protocol::{MessageId, NodeName, State, Target};
use tokio::sync::oneshot;

use super::{
    Station, moment,
    submit::{Provenance, problem, unavailable},
};
use crate::{
    courier::{self, Action, CancelAnswer, Cancellation},
    inbox::{AcceptError, content_digest},
    store::Stored,
    view::{
        CancelAsk, CancelLine, CancelOutcome, CancelReceipt, Problem, RETRIED, Receipt,
        ReceiptLine, RetryAsk,
    },
};

/// Who waits for the answer.
pub(super) type Answer<T> = oneshot::Sender<Result<T, AcceptError>>;

/// What somebody asks about a message that is there already.
#[derive(Debug, Clone)]
pub struct Change<T> {
    /// The message.
    pub id: MessageId,
    /// What is asked.
    pub ask: T,
    /// Who asks, as the station knows it.
    pub by: String,
}

impl Station {
    pub(super) async fn cancel(
        &mut self,
        change: Change<CancelAsk>,
        answer: Answer<CancelReceipt>,
    ) {
        let mut actions = Vec::new();
        let planned = tokio::task::block_in_place(|| self.plan_cancel(&change, &mut actions));
        self.conclude(planned, actions, answer).await;
    }

    pub(super) async fn retry(&mut self, change: Change<RetryAsk>, answer: Answer<Receipt>) {
        let mut actions = Vec::new();
        let planned = tokio::task::block_in_place(|| self.plan_retry(&change, &mut actions));
        self.conclude(planned, actions, answer).await;
    }

    async fn conclude<T>(
        &mut self,
        planned: Result<T, AcceptError>,
        actions: Vec<Action>,
        answer: Answer<T>,
    ) {
        let result = match planned {
            Ok(planned) => self
                .commit(&actions)
                .await
                .map(|()| planned)
                .map_err(AcceptError::Unavailable),
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.act(actions);
        }
        // Whoever asked may have gone away; asking again does no harm.
        drop(answer.send(result));
    }

    fn plan_cancel(
        &mut self,
        change: &Change<CancelAsk>,
        actions: &mut Vec<Action>,
    ) -> Result<CancelReceipt, AcceptError> {
        let stored = self.stored(change.id)?;
        let meant = meant(change.id, &stored, change.ask.nodes.as_deref())?;
        let cancellation = Cancellation {
            id: change.id,
            nodes: meant.iter().map(|(node, _)| node.clone()).collect(),
            by: change.by.clone(),
        };
        let (answers, follow) = self.courier.cancel(&cancellation, moment(self.born));
        actions.extend(follow);
        let line = |((node, answer), (_, known)): ((NodeName, CancelAnswer), (NodeName, State))| {
            let (state, outcome) = match answer {
                CancelAnswer::Cancelled => (State::Cancelled, CancelOutcome::Cancelled),
                CancelAnswer::Requested { state } => (state, CancelOutcome::Requested),
                CancelAnswer::Repeated { state, .. } => (state, CancelOutcome::Repeated),
                CancelAnswer::NotOpen => (known, CancelOutcome::Final),
            };
            CancelLine {
                node,
                state,
                outcome,
            }
        };
        Ok(CancelReceipt {
            id: change.id,
            nodes: answers.into_iter().zip(meant).map(line).collect(),
        })
    }

    fn plan_retry(
        &mut self,
        change: &Change<RetryAsk>,
        actions: &mut Vec<Action>,
    ) -> Result<Receipt, AcceptError> {
        let stored = self.stored(change.id)?;
        let nodes = chosen(change, &stored)?;
        self.check_room(nodes.len())?;
        let mut message = stored.message;
        message.target = Target::Nodes(nodes.clone());
        let problems = self.check_targets(0, &message.target, &nodes);
        if !problems.is_empty() {
            return Err(AcceptError::Rejected(problems));
        }
        let provenance = Provenance {
            pos: self.courier.next_pos(),
            source: &format!("retry:{}", change.id),
            submitted_by: &change.by,
            intake: None,
            retry_of: Some(change.id),
        };
        let content = content_digest(&message);
        let mut accepted = self
            .compose(&message, content, &provenance, nodes.clone())
            .map_err(|reason| refused(reason, "send the bulk as a file"))?;
        // Rule J6: first the old one is called off; what that does not settle at once holds the new one.
        let cancellation = Cancellation {
            id: change.id,
            nodes: nodes.clone(),
            by: change.by.clone(),
        };
        let now = moment(self.born);
        actions.extend(self.courier.cancel(&cancellation, now).1);
        if !change.ask.force {
            let of = |node: &NodeName| {
                let node = node.clone();
                let lineage = stored.lineage.iter();
                lineage
                    .map(move |pos| (node.clone(), *pos))
                    .collect::<Vec<_>>()
            };
            let holds = nodes.iter().flat_map(of);
            accepted.holds = holds
                .filter(|(node, pos)| self.courier.is_open(node, *pos))
                .collect();
        }
        let mut held: Vec<NodeName> = accepted
            .holds
            .iter()
            .map(|(node, _)| node.clone())
            .collect();
        held.dedup();
        let line = ReceiptLine {
            id: accepted.id,
            name: accepted.message.name.clone(),
            nodes,
            recognised: false,
            retry_of: Some(change.id),
            held,
        };
        actions.extend(self.courier.accept(Arc::new(accepted), now));
        Ok(Receipt {
            messages: vec![line],
        })
    }

    fn stored(&self, id: MessageId) -> Result<Stored, AcceptError> {
        let stored = self.store.stored(id).map_err(unavailable)?;
        stored.ok_or_else(|| {
            refused(
                format!("the message {id} is not in the ledger any more"),
                "see `steward msg ls`",
            )
        })
    }
}

/// Returns the deliveries meant: those to `nodes`, or all.
fn meant(
    id: MessageId,
    stored: &Stored,
    nodes: Option<&[NodeName]>,
) -> Result<Vec<(NodeName, State)>, AcceptError> {
    let Some(nodes) = nodes else {
        return Ok(stored.deliveries.clone());
    };
    let mut meant: Vec<(NodeName, State)> = Vec::new();
    let mut strangers = Vec::new();
    for node in nodes {
        match stored.deliveries.iter().find(|(known, _)| known == node) {
            Some(found) if !meant.contains(found) => meant.push(found.clone()),
            Some(_) => {}
            None => {
                let names = stored.deliveries.iter().map(|(known, _)| known.as_str());
                let hint = steward_protocol::nearest::nearest(node.as_str(), names)
                    .map(|name| format!("did you mean {name}?"));
                strangers.push(Problem {
                    hint: hint.or_else(|| Some(format!("see `steward msg show {id}`"))),
                    ..problem(
                        "/nodes".to_owned(),
                        format!("the message {id} does not go to {node}"),
                        None,
                    )
                });
            }
        }
    }
    match strangers.is_empty() {
        true => Ok(meant),
        false => Err(AcceptError::Rejected(strangers)),
    }
}

/// Returns the nodes on which the message is to be repeated; at least one.
fn chosen(change: &Change<RetryAsk>, stored: &Stored) -> Result<Vec<NodeName>, AcceptError> {
    let states = change.ask.states.as_deref().unwrap_or(&RETRIED);
    if states.contains(&State::Succeeded) {
        return Err(refused(
            "what succeeded is never repeated".to_owned(),
            "submit it again as a new message if that is what you want",
        ));
    }
    let meant = meant(change.id, stored, change.ask.nodes.as_deref())?;
    let is_wanted = |(_, state): &&(NodeName, State)| states.contains(state);
    let nodes: Vec<NodeName> = meant
        .iter()
        .filter(is_wanted)
        .map(|(node, _)| node.clone())
        .collect();
    if !nodes.is_empty() {
        return Ok(nodes);
    }
    let words = |states: &[State]| {
        let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        words.join(", ")
    };
    let mut there: Vec<State> = meant.iter().map(|(_, state)| *state).collect();
    there.sort_unstable();
    there.dedup();
    let reason = format!(
        "nothing of message {} is in one of the states {}; there is only: {}",
        change.id,
        words(states),
        words(&there)
    );
    there.retain(|state| *state != State::Succeeded);
    let hint = match there.is_empty() {
        true => {
            "everything has succeeded; submit it again as a new message to run it again".to_owned()
        }
        false => format!(
            "name the states you mean: --state {}",
            words(&there).replace(", ", ",")
        ),
    };
    Err(AcceptError::Rejected(vec![Problem {
        hint: Some(hint),
        ..problem("/states".to_owned(), reason, None)
    }]))
}

fn refused(reason: String, hint: &'static str) -> AcceptError {
    AcceptError::Rejected(vec![problem(String::new(), reason, Some(hint))])
}

/// What is known of one delivery beyond the ledger, for whoever asks why.
#[derive(Debug, Clone)]
pub struct Insight {
    /// What is believed of the node; none when it was never even mentioned.
    pub node: Option<crate::view::NodeView>,
    /// What the delivery waits for; none when nothing is open there.
    pub outlook: Option<courier::Outlook>,
}

impl Station {
    pub(super) fn insight(&self, id: MessageId, node: &NodeName) -> Insight {
        Insight {
            node: self.courier.node(node),
            outlook: self.courier.outlook(node, id, moment(self.born)),
        }
    }
}
