//! The book: every name, subject and order a schedule may need, made once per worker.
//!
//! Sealing an order costs more than deciding about it, so the orders of a place in the ledger are
//! written in a few variants before the first schedule. Knows nothing of faults or time.

use std::{rc::Rc, str::FromStr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use steward_protocol::{
    Body, Digest, Domain, Kind, LedgerId, Message, MessageId, Method, NodeName, Options, Order,
    Sealed, ShellBody, Subject, Target,
};
use steward_station::courier::{Accepted, Addressee};
use uuid::Uuid;

use super::dice::Dice;

/// Most nodes of a schedule.
pub const NODES: usize = 4;

/// Domains, and so lanes, per node.
pub const DOMAINS: usize = 3;

/// Variants of the message at one place.
const VARIANTS: usize = 24;

/// The wall clock at the beginning of every schedule, in milliseconds since 1970.
pub const BEGINNING: i64 = 1_900_000_000_000;

/// What a command is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It can be started.
    Startable,
    /// There is no such program.
    Missing,
}

/// One message, ready to be accepted, with its orders.
#[derive(Debug)]
pub struct Page {
    /// What the ledger gets.
    pub accepted: Arc<Accepted>,
    /// Its order for each of its nodes.
    pub orders: Vec<(usize, Sealed)>,
    /// Its lane.
    pub domain: usize,
    /// What its command is like.
    pub nature: Nature,
}

impl Page {
    /// Returns the order for `node`.
    pub fn order(&self, node: usize) -> Option<&Sealed> {
        let (_, order) = self.orders.iter().find(|(known, _)| *known == node)?;
        Some(order)
    }
}

/// What an operator asks for, before it has a place.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id.
    pub id: MessageId,
    /// The place it will get.
    pub pos: u64,
    /// To which nodes.
    pub nodes: Vec<usize>,
    /// In which domain.
    pub domain: usize,
    /// How.
    pub options: Options,
    /// What its command is like.
    pub nature: Nature,
    /// Which message it repeats.
    pub retry_of: Option<MessageId>,
    /// Where it waits for which earlier message.
    pub holds: Vec<(usize, u64)>,
    /// When it is accepted, in milliseconds after [`BEGINNING`].
    pub at: u64,
}

/// Everything made beforehand.
#[derive(Debug)]
pub struct Book {
    /// The station's name.
    pub station: NodeName,
    /// Its ledger.
    pub ledger_id: LedgerId,
    /// The nodes' names.
    pub names: Vec<NodeName>,
    /// The domains.
    pub domains: Vec<Domain>,
    /// The subject of every node and domain.
    pub subjects: Vec<Vec<Subject>>,
    /// The same as text.
    pub subject_texts: Vec<Vec<String>>,
    /// By number of nodes, place and variant.
    pages: Vec<Vec<Vec<Rc<Page>>>>,
}

impl Book {
    /// Writes the book for schedules of up to `messages` messages, the repeated ones included.
    pub fn write(messages: usize) -> Self {
        let names: Vec<NodeName> = (1..=NODES).map(|n| name(&format!("ship{n}"))).collect();
        let domains: Vec<Domain> = ["engine", "bridge", "galley"].map(name).into();
        let subject = |node: &NodeName, domain: &Domain| {
            Subject::new(
                node.clone(),
                Kind::Command,
                Method::Shellcommand,
                domain.clone(),
            )
        };
        let subjects: Vec<Vec<Subject>> = names
            .iter()
            .map(|node| domains.iter().map(|domain| subject(node, domain)).collect())
            .collect();
        let texts = |of: &Vec<Subject>| of.iter().map(Subject::to_string).collect();
        let subject_texts = subjects.iter().map(texts).collect();
        let mut book = Self {
            station: name("central"),
            ledger_id: LedgerId(Uuid::from_u128(0xA)),
            names,
            domains,
            subjects,
            subject_texts,
            pages: Vec::new(),
        };
        let mut dice = Dice::new(0x5EED);
        book.pages = (1..=NODES)
            .map(|nodes| {
                (1..=messages as u64)
                    .map(|pos| {
                        (0..VARIANTS)
                            .map(|_| Rc::new(book.page(draw(&mut dice, nodes, pos))))
                            .collect()
                    })
                    .collect()
            })
            .collect();
        book
    }

    /// Returns one of the messages written for place `pos` in schedules of `nodes` nodes.
    pub fn pick(&self, nodes: usize, pos: u64, dice: &mut Dice) -> Rc<Page> {
        let place = usize::try_from(pos).unwrap_or(usize::MAX) - 1;
        let variants = &self.pages[nodes - 1][place];
        Rc::clone(&variants[dice.index(variants.len())])
    }

    /// Writes a message down with its orders, exactly as the station does.
    pub fn page(&self, request: Request) -> Page {
        let body = Body::Shell(ShellBody {
            data: vec!["/usr/bin/true".to_owned()],
            ..ShellBody::default()
        });
        let accepted_at = wall(i64::try_from(request.at).unwrap_or(0));
        let expires =
            SignedDuration::try_from(request.options.expires).unwrap_or(SignedDuration::MAX);
        let expires_at = accepted_at
            .saturating_add(expires)
            .unwrap_or(Timestamp::MAX);
        let raw = serde_json::value::to_raw_value(&body).expect("a shell body is always JSON");
        let order = |node: usize| self.order(&request, node, accepted_at, expires_at, raw.clone());
        let orders: Vec<(usize, Sealed)> = request
            .nodes
            .iter()
            .map(|node| {
                let sealed = Sealed::seal(order(*node)).expect("the order is a few hundred bytes");
                (*node, sealed)
            })
            .collect();
        let targets = orders
            .iter()
            .map(|(node, order)| Addressee {
                node: self.names[*node].clone(),
                digest: order.digest(),
            })
            .collect();
        let named = request.nodes.iter().map(|node| self.names[*node].clone());
        let message = Message {
            id: Some(request.id),
            name: None,
            target: Target::Nodes(named.collect()),
            kind: Kind::Command,
            method: Method::Shellcommand.name(),
            domain: self.domains[request.domain].clone(),
            options: request.options.clone(),
            body,
        };
        let accepted = Accepted {
            pos: request.pos,
            id: request.id,
            message,
            content: Digest::of(&request.id.0.into_bytes()),
            station: self.station.clone(),
            source: "simulation".to_owned(),
            submitted_by: "operator".to_owned(),
            accepted_at,
            expires_at,
            intake: None,
            retry_of: request.retry_of,
            holds: request
                .holds
                .iter()
                .map(|(node, pos)| (self.names[*node].clone(), *pos))
                .collect(),
            targets,
        };
        Page {
            accepted: Arc::new(accepted),
            orders,
            domain: request.domain,
            nature: request.nature,
        }
    }

    fn order(
        &self,
        request: &Request,
        node: usize,
        issued_at: Timestamp,
        expires_at: Timestamp,
        body: Box<RawValue>,
    ) -> Order {
        Order {
            id: request.id,
            from: self.station.clone(),
            to: self.names[node].clone(),
            subject: self.subjects[node][request.domain].clone(),
            issued_at,
            expires_at,
            submitted_by: "operator".to_owned(),
            retry_of: request.retry_of,
            timeout_ms: millis(request.options.timeout),
            ordered: request.options.ordered,
            idempotent: request.options.idempotent,
            success_codes: request.options.success_codes.clone(),
            stream: request.options.stream,
            body,
        }
    }
}

/// Returns which node bears `name`: its number is its last letter.
pub fn node_of(name: &NodeName) -> usize {
    let last = name.as_str().as_bytes().last().copied().unwrap_or(b'1');
    usize::from(last.saturating_sub(b'1')).min(NODES - 1)
}

/// Returns which domain `subject` is of.
pub fn domain_of(domain: &Domain) -> usize {
    match domain.as_str().as_bytes().first() {
        Some(b'e') => 0,
        Some(b'b') => 1,
        _ => 2,
    }
}

/// Returns the wall clock `ms` milliseconds after the beginning.
pub fn wall(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(BEGINNING + ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns `duration` in milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn name<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse()
        .expect("the names written in this program are tokens")
}

/// Draws what an operator asks for.
fn draw(dice: &mut Dice, nodes: usize, pos: u64) -> Request {
    let mut targets: Vec<usize> = vec![dice.index(nodes)];
    if dice.chance(150) {
        targets = (0..nodes).filter(|_| dice.chance(700)).collect();
        if targets.is_empty() {
            targets.push(0);
        }
    }
    let expires = dice.pick(&[6, 15, 15, 40, 3600, 3600, 3600, 3600]);
    let options = Options {
        timeout: Duration::from_secs(if dice.chance(120) { 1 } else { 300 }),
        expires: Duration::from_secs(expires),
        ordered: dice.chance(700),
        idempotent: dice.chance(120),
        success_codes: if dice.chance(200) {
            vec![0, 3]
        } else {
            vec![0]
        },
        ..Options::standard()
    };
    Request {
        id: MessageId(Uuid::from_u64_pair(pos, dice.roll())),
        pos,
        nodes: targets,
        domain: dice.index(DOMAINS),
        options,
        nature: if dice.chance(40) {
            Nature::Missing
        } else {
            Nature::Startable
        },
        retry_of: None,
        holds: Vec::new(),
        at: 0,
    }
}
