//! What this node can be asked to do: a closed set, matched exhaustively.

use steward_protocol::{Method, MethodName, Order, ShellBody};

pub mod hello;
pub mod shell;

/// An order's own part, read and checked: what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Run a command of the operating system.
    Shellcommand(ShellBody),
    /// Say what this node is.
    Hello,
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
    #[error("bad body: {field} {problem}")]
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
        match Method::from_name(name) {
            Some(Method::Shellcommand) => shell::read(&order.body).map(Self::Shellcommand),
            Some(Method::Hello) => Ok(Self::Hello),
            Some(
                Method::Welcome
                | Method::Ack
                | Method::Confirm
                | Method::Fault
                | Method::Cancel
                | Method::Output
                | Method::Want
                | Method::Content,
            )
            | None => Err(Refusal::Method {
                method: name.clone(),
            }),
        }
    }
}
