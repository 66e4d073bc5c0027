//! A simulated station with knobs: it may be silent, forgetful, another one, or an earlier one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_nats::Client;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use steward_protocol::{
    Ack, Cancel, Confirm, Digest, EventId, FaultEvent, Frame, Hello, InstanceId, LedgerId,
    MessageId, NodeName, Order, Origin, Reign, ReportEvent, Sealed, Send, State, Subject,
    TextEvent, Welcome, envelope::Envelope,
};
use uuid::Uuid;

use super::{eventually, logs::Logs};

/// What the station does and what it has heard.
pub(crate) struct World {
    pub(crate) welcomes: bool,
    pub(crate) confirms: bool,
    pub(crate) ledger_id: LedgerId,
    pub(crate) epoch: u64,
    pub(crate) low: u64,
    pub(crate) hellos: Vec<(NodeName, Origin, Hello)>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) faults: Vec<FaultEvent>,
    pub(crate) texts: Vec<TextEvent>,
    pub(crate) reports: Vec<ReportEvent>,
    pub(crate) logs: Logs,
    instances: BTreeMap<String, InstanceId>,
    lanes: BTreeMap<String, u64>,
    pos: u64,
}

#[derive(Clone)]
pub(crate) struct Station {
    pub(crate) client: Client,
    world: Arc<Mutex<World>>,
}

/// An order to be sent, with everything that can be turned.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) order: Order,
    pub(crate) ordered: bool,
}

impl Request {
    pub(crate) fn new(node: &str, argv: &[&str]) -> Self {
        Self::body(
            &format!("{node}.command.shellcommand.operatingsystem"),
            json!({ "data": argv }),
        )
    }

    pub(crate) fn body(subject: &str, body: Value) -> Self {
        let subject: Subject = subject.parse().expect("a subject");
        let now = Timestamp::now();
        let hour = SignedDuration::from_secs(3600);
        Self {
            order: Order {
                id: MessageId(Uuid::now_v7()),
                from: "central".parse().expect("a name"),
                to: subject.node.clone(),
                subject,
                issued_at: now,
                expires_at: now + hour,
                submitted_by: "tester".to_owned(),
                retry_of: None,
                timeout_ms: 60_000,
                ordered: true,
                idempotent: false,
                success_codes: vec![0],
                stream: false,
                body: serde_json::value::to_raw_value(&body).expect("a body"),
            },
            ordered: true,
        }
    }

    pub(crate) fn timeout(mut self, time: Duration) -> Self {
        self.order.timeout_ms = u64::try_from(time.as_millis()).expect("a short time");
        self
    }

    pub(crate) fn unordered(mut self) -> Self {
        self.order.ordered = false;
        self.ordered = false;
        self
    }

    pub(crate) fn idempotent(mut self) -> Self {
        self.order.idempotent = true;
        self
    }
}

/// An order that was sent, to be sent again or asked about.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) id: MessageId,
    pub(crate) digest: Digest,
    pub(crate) envelope: Envelope,
}

impl Station {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(url)
            .await
            .expect("the station connects");
        let world = Arc::new(Mutex::new(World {
            welcomes: true,
            confirms: true,
            ledger_id: LedgerId(Uuid::new_v4()),
            epoch: 1,
            low: 1,
            hellos: Vec::new(),
            acks: Vec::new(),
            faults: Vec::new(),
            texts: Vec::new(),
            reports: Vec::new(),
            logs: Logs::default(),
            instances: BTreeMap::new(),
            lanes: BTreeMap::new(),
            pos: 0,
        }));
        let station = Self { client, world };
        let mut inbox = station
            .client
            .subscribe("central.>")
            .await
            .expect("the station subscribes");
        station.client.flush().await.expect("the station is there");
        let hearing = station.clone();
        tokio::spawn(async move {
            while let Some(message) = inbox.next().await {
                hearing.hear(&message.subject, &message.payload).await;
            }
        });
        station
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("nobody panics with the world in hand")
    }

    async fn hear(&self, subject: &str, payload: &[u8]) {
        let node: NodeName = subject
            .rsplit_once('.')
            .and_then(|(_, node)| node.parse().ok())
            .expect("a sender");
        if subject.starts_with("central.event.syslogforwarding.") {
            let kept = self.world().logs.take(subject, payload);
            if let Some((domain, kept)) = kept {
                let send = self.reign(&node);
                let frame = Frame { send, body: kept }.encode().expect("a frame");
                let subject = format!("{node}.event.kept.{domain}");
                self.publish(&subject, frame).await;
            }
        } else if let Ok(frame) = Frame::<Origin, Hello>::decode(payload) {
            let answers = {
                let mut world = self.world();
                let instance = frame.send.instance;
                world.instances.insert(node.to_string(), instance);
                world
                    .hellos
                    .push((node.clone(), frame.send, frame.body.clone()));
                world.welcomes
            };
            if answers {
                self.welcome(&node, frame.body.at).await;
            }
        } else if let Ok(frame) = Frame::<Origin, Ack>::decode(payload) {
            let (id, over) = (frame.body.id, frame.body.state.is_final());
            let confirms = {
                let mut world = self.world();
                world.acks.push(frame.body);
                world.confirms
            };
            if over && confirms {
                let confirm = Confirm {
                    orders: vec![id],
                    events: Vec::new(),
                };
                self.confirm(&node, confirm).await;
            }
        } else if let Ok(frame) = Frame::<Origin, FaultEvent>::decode(payload) {
            let id = frame.body.id;
            self.world().faults.push(frame.body);
            self.confirm_event(&node, id).await;
        } else if let Ok(frame) = Frame::<Origin, TextEvent>::decode(payload) {
            let id = frame.body.id;
            let confirms = {
                let mut world = self.world();
                if !world.texts.iter().any(|known| known.id == id) {
                    world.texts.push(frame.body);
                }
                world.confirms
            };
            if confirms {
                self.confirm_event(&node, id).await;
            }
        } else if let Ok(frame) = Frame::<Origin, ReportEvent>::decode(payload) {
            let id = frame.body.id;
            let confirms = {
                let mut world = self.world();
                if !world.reports.iter().any(|known| known.id == id) {
                    world.reports.push(frame.body);
                }
                world.confirms
            };
            if confirms {
                self.confirm_event(&node, id).await;
            }
        } else {
            panic!("the agent said something unreadable on {subject}");
        }
    }

    async fn confirm_event(&self, node: &NodeName, id: EventId) {
        let confirm = Confirm {
            orders: Vec::new(),
            events: vec![id],
        };
        self.confirm(node, confirm).await;
    }

    fn reign(&self, node: &NodeName) -> Reign {
        let world = self.world();
        Reign {
            v: 1,
            ledger_id: world.ledger_id,
            epoch: world.epoch,
            instance: world.instances[node.as_str()],
            low: world.low,
        }
    }

    pub(crate) async fn welcome(&self, node: &NodeName, hello_at: Timestamp) {
        let body = Welcome {
            at: Timestamp::now(),
            hello_at,
        };
        let frame = Frame {
            send: self.reign(node),
            body,
        }
        .encode()
        .expect("a frame");
        self.publish(&format!("{node}.event.welcome.node"), frame)
            .await;
    }

    pub(crate) async fn confirm(&self, node: &NodeName, body: Confirm) {
        let frame = Frame {
            send: self.reign(node),
            body,
        }
        .encode()
        .expect("a frame");
        self.publish(&format!("{node}.event.confirm.operatingsystem"), frame)
            .await;
    }

    pub(crate) async fn publish(&self, subject: &str, bytes: Vec<u8>) {
        self.client
            .publish(subject.to_owned(), bytes.into())
            .await
            .expect("the station publishes");
    }

    /// Waits until an agent has said hello twice, so that a welcome has come back to it.
    pub(crate) async fn met(&self, node: &str) -> InstanceId {
        let before = self.world().instances.get(node).copied();
        eventually(&format!("a welcomed {node}"), || {
            let world = self.world();
            let (_, origin, _) = world.hellos.iter().rev().find(|(name, origin, _)| {
                name.as_str() == node
                    && Some(origin.instance) != before.filter(|_| world.hellos.is_empty())
                    && origin.ledger_id == Some(world.ledger_id)
            })?;
            Some(origin.instance)
        })
        .await
    }

    /// Waits until another start of an agent than `old` has been welcomed.
    pub(crate) async fn met_again(&self, node: &str, old: InstanceId) -> InstanceId {
        eventually(&format!("another start of {node}"), || {
            let world = self.world();
            world
                .hellos
                .iter()
                .find(|(name, origin, _)| {
                    name.as_str() == node
                        && origin.instance != old
                        && origin.ledger_id == Some(world.ledger_id)
                })
                .map(|(_, origin, _)| origin.instance)
        })
        .await
    }

    /// Seals an order and gives it its place, without sending it.
    pub(crate) fn prepare(&self, request: Request) -> Sent {
        let ordered = request.ordered;
        let body = Sealed::seal(request.order).expect("an order that fits");
        let order = body.order();
        let mut world = self.world();
        world.pos += 1;
        let lane = world.lanes.entry(order.subject.to_string()).or_insert(0);
        if ordered {
            *lane += 1;
        }
        let seq = ordered.then_some(*lane);
        let send = Send {
            v: 1,
            ledger_id: world.ledger_id,
            epoch: world.epoch,
            instance: world
                .instances
                .get(order.to.as_str())
                .copied()
                .unwrap_or(InstanceId(Uuid::nil())),
            pos: world.pos,
            low: world.low,
            seq,
            seq_low: seq.map(|_| 1),
            attempt: 1,
            ttl_left_ms: 3_600_000,
        };
        Sent {
            id: order.id,
            digest: body.digest(),
            envelope: Envelope { send, body },
        }
    }

    pub(crate) async fn send(&self, request: Request) -> Sent {
        let sent = self.prepare(request);
        self.resend(&sent).await;
        sent
    }

    /// Sends once more, to the agent's present start.
    pub(crate) async fn resend(&self, sent: &Sent) {
        let order = sent.envelope.body.order();
        let mut envelope = sent.envelope.clone();
        {
            let world = self.world();
            if let Some(instance) = world.instances.get(order.to.as_str()) {
                envelope.send.instance = *instance;
            }
        }
        self.send_as_is(&envelope).await;
    }

    /// Cancels an order, at the agent's present start.
    pub(crate) async fn cancel(&self, sent: &Sent) {
        self.cancel_as(sent, |_| {}).await;
    }

    /// Sends the cancellation of an order, changed in one way.
    pub(crate) async fn cancel_as(
        &self,
        sent: &Sent,
        change: impl FnOnce(&mut Frame<Send, Cancel>),
    ) {
        let order = sent.envelope.body.order();
        let body = Cancel {
            id: sent.id,
            digest: sent.digest,
            subject: order.subject.clone(),
            at: Timestamp::now(),
            by: "ann".to_owned(),
        };
        let send = sent.envelope.send.clone();
        let mut frame = Frame { send, body };
        if let Some(instance) = self.world().instances.get(order.to.as_str()) {
            frame.send.instance = *instance;
        }
        let subject = format!("{}.command.cancel.{}", order.to, order.subject.domain);
        change(&mut frame);
        let bytes = frame.encode().expect("a frame that fits");
        self.publish(&subject, bytes).await;
    }

    pub(crate) async fn send_as_is(&self, envelope: &Envelope) {
        let subject = envelope.body.order().subject.to_string();
        let bytes = envelope.encode().expect("an envelope that fits");
        self.publish(&subject, bytes).await;
    }

    /// Waits for an answer about exactly this order in one of these states.
    pub(crate) async fn ack(&self, sent: &Sent, states: &[State]) -> Ack {
        let awaited = format!("{states:?} of {}", sent.id);
        let (id, digest) = (sent.id, sent.digest);
        let matches =
            move |ack: &&Ack| ack.id == id && ack.digest == digest && states.contains(&ack.state);
        let found = eventually(&awaited, || {
            self.world().acks.iter().rev().find(matches).cloned()
        });
        found.await
    }

    /// Waits for the final answer.
    pub(crate) async fn over(&self, sent: &Sent) -> Ack {
        let finals: Vec<State> = State::ALL
            .into_iter()
            .filter(|state| state.is_final())
            .collect();
        self.ack(sent, &finals).await
    }

    /// Returns every state heard of an order, in the order of hearing.
    pub(crate) fn states(&self, sent: &Sent) -> Vec<State> {
        let world = self.world();
        let acks = world.acks.iter();
        acks.filter(|ack| ack.id == sent.id && ack.digest == sent.digest)
            .map(|ack| ack.state)
            .collect()
    }

    /// Waits for a hello that shows what is looked for.
    pub(crate) async fn hello<T>(
        &self,
        awaited: &str,
        look: impl Fn(&Origin, &Hello) -> Option<T>,
    ) -> T {
        eventually(awaited, || {
            let world = self.world();
            let mut hellos = world.hellos.iter().rev();
            hellos.find_map(|(_, origin, hello)| look(origin, hello))
        })
        .await
    }

    /// Makes sure that everything sent before has been dealt with: a later order on another subject is over.
    pub(crate) async fn settled(&self, node: &str) {
        let subject = format!("{node}.command.shellcommand.barrier");
        let sent = self
            .send(Request::body(&subject, json!({ "data": ["true"] })))
            .await;
        self.over(&sent).await;
    }
}
