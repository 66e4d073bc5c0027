//! Does the errands: asks the station to call messages off and to repeat them, and books what it answered.
//!
//! A station that is away is asked again a little later. A request without an answer may or may not have been
//! recorded: a cancellation is asked for again, a repetition is not, for that would be another one.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    claims::{Asking, Claimed, Desk, Reply},
    dice::Dice,
    errand::{Errand, Named, Wish},
    figures::Figures,
    judge::{Again, Wishes},
    witness::Place,
};

/// How long until something is asked again.
const AGAIN: Duration = Duration::from_millis(150);

/// How often something is asked again because the answer was no, or none came.
const TRIES: u32 = 10;

/// Requests a station that is killed has just been given, and how long before its end, at most.
const AT_THE_END: usize = 3;
const MOMENT: Duration = Duration::from_millis(4);

/// Where the figures stand.
const GROUP: &str = "meddled";

/// Every so many repetitions one is called off itself.
const CALLED_OFF_AGAIN: usize = 4;

#[derive(Debug)]
struct Due {
    at: Instant,
    tries: u32,
    errand: Errand,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Begun {
    id: String,
    due: Due,
    asking: Asking,
}

/// The one who does the errands of a world.
#[derive(Debug)]
pub(crate) struct Meddler {
    desk: Desk,
    dice: Dice,
    due: Vec<Due>,
    /// Ids by name.
    ids: BTreeMap<String, String>,
    wishes: Wishes,
}

impl Meddler {
    pub(crate) fn new(desk: Desk, dice: Dice) -> Self {
        Self {
            desk,
            dice,
            due: Vec::new(),
            ids: BTreeMap::new(),
            wishes: Wishes::default(),
        }
    }

    pub(crate) fn plan(&mut self, errands: Vec<Errand>) {
        let now = Instant::now();
        self.due.extend(errands.into_iter().map(|errand| Due {
            at: now + errand.after,
            tries: 0,
            errand,
        }));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.due.is_empty()
    }

    pub(crate) fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// Does what is due.
    pub(crate) fn work(&mut self, figures: &mut Figures) {
        let now = Instant::now();
        let (ready, later) = std::mem::take(&mut self.due)
            .into_iter()
            .partition::<Vec<Due>, _>(|due| due.at <= now);
        self.due = later;
        let mut is_there = ready.is_empty() || self.learn(&ready);
        for mut due in ready {
            if is_there && let Some(id) = self.id(&due.errand.message) {
                due.tries += 1;
                let wish = due.errand.wish;
                let path = format!("/messages/{id}/{}", wish.path());
                let reply = self.desk.post(&path, &wish.ask(&due.errand.nodes));
                is_there = matches!(reply, Reply::Done(_) | Reply::Refused(_));
                if self.book(&id, &due, &reply, figures) == Next::Over {
                    continue;
                }
            }
            due.at = Instant::now() + AGAIN;
            self.due.push(due);
        }
    }

    /// Begins what is next, due or not, for a station about to be killed, and lets a moment pass.
    pub(crate) fn begin(&mut self) -> Vec<Begun> {
        let next = self.due.len().min(AT_THE_END);
        let next: Vec<Due> = self.due.drain(..next).collect();
        let is_there = next.is_empty() || self.learn(&next);
        let mut begun = Vec::new();
        for mut due in next {
            let id = self.id(&due.errand.message).filter(|_| is_there);
            let asking = id.and_then(|id| {
                let path = format!("/messages/{id}/{}", due.errand.wish.path());
                let ask = due.errand.wish.ask(&due.errand.nodes);
                Some((id, self.desk.begin(&path, &ask)?))
            });
            match asking {
                Some((id, asking)) => {
                    due.tries += 1;
                    begun.push(Begun { id, due, asking });
                }
                None => self.due.push(due),
            }
        }
        if !begun.is_empty() {
            thread::sleep(self.dice.time(MOMENT));
        }
        begun
    }

    /// Books what came of what was begun.
    pub(crate) fn end(&mut self, begun: Vec<Begun>, figures: &mut Figures) {
        for Begun {
            id,
            mut due,
            asking,
        } in begun
        {
            let reply = asking.end();
            if self.book(&id, &due, &reply, figures) == Next::Again {
                due.at = Instant::now() + AGAIN;
                self.due.push(due);
            }
        }
    }

    /// Learns the ids of messages that have none yet; returns whether the station answers.
    fn learn(&mut self, ready: &[Due]) -> bool {
        if ready
            .iter()
            .all(|due| self.id(&due.errand.message).is_some())
        {
            return true;
        }
        let Ok(newest) = self.desk.newest(0) else {
            return false;
        };
        // Newest first: a repetition has the name of the first one, which comes last.
        let named = newest.into_iter().map(|(id, name)| (name, id));
        self.ids.extend(named);
        true
    }

    fn id(&self, message: &Named) -> Option<String> {
        match message {
            Named::Name(name) => self.ids.get(name).cloned(),
            Named::Id(id) => Some(id.clone()),
        }
    }

    fn book(&mut self, id: &str, due: &Due, reply: &Reply, figures: &mut Figures) -> Next {
        let Errand { nodes, wish, .. } = &due.errand;
        let may_repeat = match due.tries < TRIES {
            true => Next::Again,
            false => Next::Over,
        };
        let count = |figures: &mut Figures, what: &str| {
            figures.add(GROUP, &format!("{} {what}", wish.path()), 1);
        };
        match reply {
            // It took no try of its own: somebody starts it again sooner or later.
            Reply::Away => Next::Again,
            Reply::Refused(why) if wish.may_come(why) => may_repeat,
            Reply::Refused(_) => {
                count(figures, "refused");
                Next::Over
            }
            Reply::Unanswered => {
                count(figures, "unanswered");
                self.wish_cancelled(id, nodes);
                if *wish == Wish::Cancel {
                    return may_repeat;
                }
                *self.wishes.unanswered.entry(id.to_owned()).or_default() += 1;
                Next::Over
            }
            Reply::Done(receipt) => {
                count(figures, "answered");
                match wish {
                    Wish::Cancel => self.cancelled(id, receipt, figures),
                    Wish::RetryEnded | Wish::RetryOpen => self.repeated(id, receipt, figures),
                }
                Next::Over
            }
        }
    }

    fn wish_cancelled(&mut self, id: &str, nodes: &[String]) {
        let places = nodes.iter().map(|node| place(id, node));
        self.wishes.cancels.extend(places);
    }

    fn cancelled(&mut self, id: &str, receipt: &Value, figures: &mut Figures) {
        for line in receipt["nodes"].as_array().into_iter().flatten() {
            let node = line["node"].as_str().unwrap_or_default().to_owned();
            let state = line["state"].as_str().unwrap_or_default();
            self.wish_cancelled(id, std::slice::from_ref(&node));
            let caught = match line["outcome"].as_str() {
                Some("cancelled") => {
                    self.wishes.done.insert(place(id, &node));
                    "accepted"
                }
                Some("final") => "final",
                _ => state,
            };
            figures.add(GROUP, &format!("caught {caught}"), 1);
        }
    }

    fn repeated(&mut self, id: &str, receipt: &Value, figures: &mut Figures) {
        let line = &receipt["messages"][0];
        let names = |value: &Value| -> Vec<String> {
            let names = value.as_array().into_iter().flatten();
            names
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        };
        let again = Again {
            of: id.to_owned(),
            nodes: names(&line["nodes"]),
            held: names(&line["held"]),
        };
        self.wish_cancelled(id, &again.nodes);
        let add = |figures: &mut Figures, what: &str, names: &[String]| {
            figures.add(GROUP, what, u64::try_from(names.len()).unwrap_or(0));
        };
        add(figures, "repeated", &again.nodes);
        add(figures, "held", &again.held);
        let new = line["id"].as_str().unwrap_or_default().to_owned();
        if self.wishes.again.len().is_multiple_of(CALLED_OFF_AGAIN) {
            self.due.push(Due {
                at: Instant::now() + AGAIN / 3,
                tries: 0,
                errand: Errand {
                    message: Named::Id(new.clone()),
                    nodes: again.nodes.clone(),
                    after: Duration::ZERO,
                    wish: Wish::Cancel,
                },
            });
        }
        self.wishes.again.insert(new, again);
    }

    /// Notes what the station says is cancelled and never ran: it must not run later.
    pub(crate) fn saw(&mut self, claimed: &[Claimed]) {
        for message in claimed {
            let claims = message.deliveries.iter();
            let done = claims.filter(|claim| claim.state == "cancelled" && !claim.was_stopped());
            let places = done.map(|claim| place(&message.id, &claim.node));
            self.wishes.done.extend(places);
        }
    }

    /// Counts what became of it all.
    pub(crate) fn count(&self, claimed: &[Claimed], figures: &mut Figures) {
        for message in claimed {
            for claim in &message.deliveries {
                let is_cancelled = claim.state == "cancelled";
                let what = match (is_cancelled, claim.was_stopped()) {
                    (true, true) => Some("ended stopped"),
                    (true, false) => Some("ended never started"),
                    (false, _) => None,
                };
                if let Some(what) = what {
                    figures.add(GROUP, what, 1);
                }
                if claim.held {
                    figures.add(GROUP, &format!("held and then {}", claim.state), 1);
                }
            }
        }
    }
}

/// Whether something is still to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Over,
}

fn place(id: &str, node: &str) -> Place {
    Place {
        id: id.to_owned(),
        node: node.to_owned(),
    }
}
