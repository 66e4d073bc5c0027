//! What this node can be asked to do: a closed set, matched exhaustively.

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
    /// The method is not offered.
    #[error("unknown method {method:?}; this node offers: {}", offered())]
    Method {
        /// The method asked for.
        method: MethodName,
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

/// Returns the methods a node offers, as a list to be read.
pub fn offered() -> String {
    let names: Vec<&str> = Method::ORDERABLE.into_iter().map(Method::as_str).collect();
    names.join(", ")
}

/// Tells whether a process can be spawned for this method.
pub fn is_offered(name: &MethodName) -> bool {
    Method::from_name(name).is_some_and(|method| Method::ORDERABLE.contains(&method))
}

impl Work {
    /// Reads what an order asks for.
    ///
    /// # Errors
    ///
    /// Says why this node will never do it.
    pub fn read(order: &Order) -> Result<Self, Refusal> {
        let name = &order.subject.method;
        let method = Method::from_name(name)
            .filter(|method| Method::ORDERABLE.contains(method))
            .ok_or_else(|| Refusal::Method {
                method: name.clone(),
            })?;
        let body = Body::read(name, order.body.get()).map_err(|error| Refusal::Body {
            field: error.field(),
            problem: error.problem,
        })?;
        Ok(Self { method, body })
    }
}
