//! Reading what a transfer has to know of the delivery it belongs to.

use steward_protocol::{Body, Digest, Domain, MessageId, MethodName, NodeName, Reply, State};

use super::{
    Reader, StoreError,
    ledger::StoredOptions,
    row::{corrupt, get, parse},
};

/// One delivery, as far as its transfers are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carriage {
    /// Digest of the order sent to the node.
    pub digest: Digest,
    /// What is known of it.
    pub state: State,
    /// Its domain.
    pub domain: Domain,
    /// What the method got.
    pub body: Body,
    /// Whether its output comes while it runs.
    pub stream: bool,
    /// Where its result goes.
    pub reply: Option<Reply>,
}

impl Reader {
    /// Returns the delivery of a message to a node, if there is one.
    ///
    /// # Errors
    ///
    /// Fails when the database does, or holds something that cannot be read.
    pub fn carriage(&self, id: MessageId, node: &NodeName) -> Result<Option<Carriage>, StoreError> {
        let query = "SELECT digest, state, method, domain, body, options
                     FROM message JOIN delivery USING (pos) WHERE id = ?1 AND node = ?2";
        let found = self.collect(query, &[&id.to_string(), &node.as_str()], |row| {
            let digest: [u8; 32] = get(row, 0)?;
            let method: MethodName = parse(row, 2, "a method")?;
            let (body, options): (String, String) = (get(row, 4)?, get(row, 5)?);
            let options: StoredOptions = serde_json::from_str(&options)
                .map_err(|error| corrupt("a message's options", &error))?;
            Ok(Carriage {
                digest: Digest::from(digest),
                state: parse(row, 1, "a state")?,
                domain: parse(row, 3, "a domain")?,
                body: Body::read(&method, &body)
                    .map_err(|error| corrupt("a message's body", &error))?,
                stream: options.stream,
                reply: options.reply,
            })
        })?;
        Ok(found.into_iter().next())
    }
}
