//! What this node can be asked to do: a closed set, matched exhaustively, of which the config may
//! leave out some.

use std::{collections::BTreeSet, fmt};

use steward_protocol::{Body, Method, MethodName, Order};

pub mod hello;

/// An order's own part, read and checked: what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The method; one that can be ordered.
    pub method: Method,
    /// What it gets; of the kind that belongs to the method.
    pub body: Body,
}

/// Why this node will never do what an order asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such method.
    #[error("unknown method {method:?}; this node offers: {offered}")]
    Method {
        /// The method asked for.
        method: MethodName,
        /// What it could be asked for.
        offered: Methods,
    },
    /// The config leaves the method out.
    #[error("policy: method {:?} is not one that this node offers: {offered}", .method.as_str())]
    LeftOut {
        /// The method asked for.
        method: Method,
        /// What it could be asked for.
        offered: Methods,
    },
    /// The method does not understand the body.
    #[error("bad body: {field}: {problem}")]
    Body {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Methods that no config can leave out: the station asks for a hello to know the node at all.
const ALWAYS: [Method; 1] = [Method::Hello];

/// The methods a node offers. What the two ends need of each other (ACKs, confirmations, cancellations,
/// welcomes, transfers of outputs) is not among them and cannot be switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods {
    /// What the config names; all there are, if it names none.
    only: Option<BTreeSet<Method>>,
}

impl Methods {
    /// Returns these methods and those that cannot be left out.
    pub fn only(named: impl IntoIterator<Item = Method>) -> Self {
        Self {
            only: Some(named.into_iter().chain(ALWAYS).collect()),
        }
    }

    /// Returns the methods offered, in the order of their introduction.
    pub fn offered(&self) -> impl Iterator<Item = Method> {
        Method::ORDERABLE
            .into_iter()
            .filter(|method| self.offers(*method))
    }

    /// Returns the names of the methods offered, if the config leaves some out.
    pub fn limited(&self) -> Option<Vec<MethodName>> {
        let names = || self.offered().map(Method::name).collect();
        self.only.as_ref().map(|_| names())
    }

    /// Tells whether an order may ask for this method.
    pub fn offers(&self, method: Method) -> bool {
        let named = self.only.as_ref();
        Method::ORDERABLE.contains(&method) && named.is_none_or(|only| only.contains(&method))
    }

    /// Tells whether a process can be spawned for the method of this name.
    pub fn has(&self, name: &MethodName) -> bool {
        Method::from_name(name).is_some_and(|method| self.offers(method))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.offered().map(Method::as_str).collect();
        formatter.write_str(&names.join(", "))
    }
}

impl Work {
    /// Reads what an order asks for.
    ///
    /// # Errors
    ///
    /// Says why this node will never do it.
    pub fn read(order: &Order, methods: &Methods) -> Result<Self, Refusal> {
        let name = &order.subject.method;
        let offered = || methods.clone();
        let method = match Method::from_name(name) {
            Some(method) if methods.offers(method) => method,
            Some(method) if Method::ORDERABLE.contains(&method) => {
                let offered = offered();
                return Err(Refusal::LeftOut { method, offered });
            }
            Some(_) | None => {
                let (method, offered) = (name.clone(), offered());
                return Err(Refusal::Method { method, offered });
            }
        };
        let body = Body::read(name, order.body.get()).map_err(|error| Refusal::Body {
            field: error.field(),
            problem: error.problem,
        })?;
        Ok(Self { method, body })
    }
}
