//! What the demo sees of its station, one look after the other.

use std::collections::BTreeMap;

use anyhow::Result;
use steward_protocol::MessageId;

use super::plan::Plan;
use crate::{
    cli::client::{Client, Query},
    view::{EventView, InboxFileView, MessageLine, MessageView, NodeView},
};

/// Most events taken in one look; the rest comes with the next ones.
const EVENTS: u32 = 1000;

/// How things stood at the last look.
#[derive(Debug, Default)]
pub(super) struct Scene {
    /// Every node.
    pub(super) nodes: Vec<NodeView>,
    /// Every message, oldest first, without outputs.
    pub(super) messages: Vec<MessageView>,
    /// The files in and around the inbox.
    pub(super) files: Vec<InboxFileView>,
    /// What has happened since the look before.
    pub(super) events: Vec<EventView>,
}

/// Looks, and remembers what need not be asked again.
pub(super) struct Watcher {
    client: Client,
    plan: Plan,
    scene: Scene,
    settled: BTreeMap<MessageId, MessageView>,
    last_event: u64,
}

impl Watcher {
    pub(super) fn new(client: Client, plan: Plan) -> Self {
        Self {
            client,
            plan,
            scene: Scene::default(),
            settled: BTreeMap::new(),
            last_event: 0,
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Asks the station how things stand.
    ///
    /// # Errors
    ///
    /// Fails when it is out of reach.
    pub(super) async fn look(&mut self) -> Result<()> {
        // Events first: what they tell is then also in the messages asked for after them.
        let path = Query::new()
            .with("after", self.last_event)
            .with("limit", EVENTS)
            .on("/events");
        let events: Vec<EventView> = self.client.get(&path).await?;
        if let Some(last) = events.last() {
            self.last_event = last.n;
        }
        let nodes = self.client.get("/nodes").await?;
        let files = self.client.get("/inbox").await?;
        let lines: Vec<MessageLine> = self.client.get("/messages?limit=0").await?;
        let mut messages = Vec::with_capacity(lines.len());
        for line in lines.iter().rev() {
            messages.push(self.message(line.id).await?);
        }
        self.scene = Scene {
            nodes,
            messages,
            files,
            events,
        };
        Ok(())
    }

    async fn message(&mut self, id: MessageId) -> Result<MessageView> {
        if let Some(settled) = self.settled.get(&id) {
            return Ok(settled.clone());
        }
        let path = Query::new()
            .with("brief", true)
            .on(&format!("/messages/{id}"));
        let view: MessageView = self.client.get(&path).await?;
        if view
            .deliveries
            .iter()
            .all(|delivery| delivery.state.is_final())
        {
            self.settled.insert(id, view.clone());
        }
        Ok(view)
    }
}
