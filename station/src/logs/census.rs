//! Which domains every node has had: so many each and no more, for each has a directory that stays, and what is
//! known of it in memory. It knows nothing of batches.

use std::collections::{BTreeSet, HashMap};

use steward_protocol::{Domain, NodeName};

use super::{
    LogsError,
    disk::{Disk, failed},
    name::Line as Key,
};

/// Domains one node may have had in all its life: eight times what an agent may name at a time, and few enough
/// for a directory that is listed now and then.
pub const MAX_DOMAINS: usize = 1024;

/// The domains of the nodes that have sent something; the disk is asked once for each node.
#[derive(Debug, Default)]
pub(super) struct Census {
    nodes: HashMap<NodeName, BTreeSet<Domain>>,
}

impl Census {
    /// Tells whether something of this domain may be stored: it has a place, or may have one.
    pub(super) fn admits<D: Disk>(&mut self, disk: &D, key: &Key) -> Result<bool, LogsError> {
        let domains = match self.nodes.get(&key.node) {
            Some(domains) => domains,
            None => {
                let node = key.node.to_string();
                let found = disk.list(&node).map_err(failed("list", &node))?;
                let domains = found.iter().filter_map(|found| found.name.parse().ok());
                let domains: BTreeSet<Domain> = domains.collect();
                self.nodes.entry(key.node.clone()).or_insert(domains)
            }
        };
        Ok(domains.len() < MAX_DOMAINS || domains.contains(&key.domain))
    }

    /// Notes that a domain has a place.
    pub(super) fn note(&mut self, key: &Key) {
        if let Some(domains) = self.nodes.get_mut(&key.node)
            && !domains.contains(&key.domain)
        {
            domains.insert(key.domain.clone());
        }
    }

    /// Has the disk asked again: a place may have been made although what was to be in it failed.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }
}
