//! The methods of the agent itself whose work is a change of the journal: what they do becomes durable
//! with the end of their order, so that it is done exactly once whenever the agent is killed.

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::{
    EventId, Order, TextEvent,
    body::{ScheduleBody, TextBody},
};
use uuid::Uuid;

use super::run::Carrier;
use crate::{
    bus::dice,
    dispatch::Turn,
    journal::local::{Deed, Effect},
};

impl Carrier {
    /// Does what an order asks of the journal, and ends it.
    pub(super) async fn perform(&self, order: &Order, effect: Effect, at: Timestamp) -> Turn {
        let deed = Deed {
            effect,
            started_at: at,
            success_codes: order.success_codes.clone(),
        };
        self.record(deed).await;
        Turn::Over
    }

    /// Text for the station's log.
    pub(super) fn log(&self, order: &Order, body: TextBody) -> Effect {
        Effect::Text(TextEvent {
            id: EventId(Uuid::now_v7()),
            at: Timestamp::now(),
            domain: order.subject.domain.clone(),
            order: Some(order.id),
            after: None,
            data: body.data,
        })
    }
}

/// A change of the schedules.
pub(super) fn change(body: Box<ScheduleBody>) -> Effect {
    Effect::Schedule {
        body,
        zone: TimeZone::system(),
        dice: dice(),
    }
}
