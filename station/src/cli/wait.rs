//! Waits until messages are settled, shows how far they have come, and can be left at any time.
//!
//! Asks the station by long polls; what the end means for the exit code is decided elsewhere.

use std::{future::Future, time::Duration};

use anyhow::Result;
use futures_util::{StreamExt, stream::FuturesUnordered};
use steward_protocol::{MessageId, NodeName, State};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Session,
    client::{Client, ClientError, Query, encode},
    progress::Progress,
    render::notice,
};
use crate::{config::values, signals::Stop, view::MessageView};

/// How long the station may hold one answer back. Short enough that a station that went away
/// without a word is noticed.
const POLL: Duration = Duration::from_secs(10);

/// Messages watched at once. The rest are asked about as these are settled: messages of one file
/// end in about the order they stand in.
const WATCHED: usize = 16;

/// How long a station may be out of reach, or answer with nothing but its own trouble, while
/// something is waited for: a restart takes seconds.
const AWAY: Duration = Duration::from_secs(30);

/// Time between two attempts to get an answer again.
const RETRY: Duration = Duration::from_millis(500);

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// At most this long.
    Limit(Duration),
    /// Until the end, whenever that is.
    Forever,
}

impl Patience {
    /// Reads a duration or `none`, for the parser of the command line.
    ///
    /// # Errors
    ///
    /// Says how a duration is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Forever),
            _ => values::duration(text).map(Self::Limit),
        }
    }

    /// Returns how long a failing station is asked again.
    pub(crate) fn away(self) -> Duration {
        match self {
            Self::Limit(limit) => limit.min(AWAY),
            Self::Forever => AWAY,
        }
    }

    fn deadline(self) -> Instant {
        // Further away than any program runs; the clock can hold it.
        const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let limit = match self {
            Self::Limit(limit) => limit.min(EVER),
            Self::Forever => EVER,
        };
        Instant::now() + limit
    }
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Every delivery is final.
    Settled,
    /// Patience was over first.
    TimedOut,
    /// The operator left.
    Detached,
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meant<'a> {
    /// The messages.
    pub(crate) ids: &'a [MessageId],
    /// On which nodes; without them, on all.
    pub(crate) nodes: Option<&'a [NodeName]>,
}

/// Waits for messages; returns how they stood at the last look, without outputs.
///
/// # Errors
///
/// Fails when the station does not know one of them, or is out of reach for long.
pub(crate) async fn settle(
    session: &Session,
    meant: Meant<'_>,
    patience: Patience,
    stop: &Stop,
) -> Result<Ended> {
    let mut progress = Progress::new();
    let watching = watch(&session.client, meant, &mut progress);
    let ended = tokio::select! {
        settled = watching => settled.map(|()| Ended::Settled),
        () = sleep_until(patience.deadline()) => Ok(Ended::TimedOut),
        () = stop.draining() => Ok(Ended::Detached),
    };
    progress.clear();
    let resume = resume(session, meant.ids);
    match ended? {
        Ended::Settled => Ok(Ended::Settled),
        Ended::TimedOut => {
            notice(&format!(
                "not settled in time; the station keeps on. {resume}"
            ));
            Ok(Ended::TimedOut)
        }
        Ended::Detached => {
            notice(&format!("left; the station keeps on. {resume}"));
            Ok(Ended::Detached)
        }
    }
}

/// Returns the sentence that says how to wait for `ids` another time.
pub(crate) fn resume(session: &Session, ids: &[MessageId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!(
        "Wait further with: {} msg watch {}",
        session.command,
        ids.join(" ")
    )
}

async fn watch(client: &Client, meant: Meant<'_>, progress: &mut Progress) -> Result<()> {
    let mut views = Vec::with_capacity(meant.ids.len());
    for id in meant.ids {
        views.push(meant.part(look(client, *id, Since::Now).await?));
    }
    let mut waiting: Vec<usize> = (0..views.len())
        .rev()
        .filter(|index| !is_settled(&views[*index]))
        .collect();
    let mut polls = FuturesUnordered::new();
    loop {
        let states: Vec<(&str, State)> = views
            .iter()
            .flat_map(|view| &view.deliveries)
            .map(|delivery| (delivery.node.as_str(), delivery.state))
            .collect();
        progress.show(&states);
        while polls.len() < WATCHED {
            let Some(index) = waiting.pop() else { break };
            let (id, version) = (views[index].id, views[index].version);
            polls.push(async move { (index, look(client, id, Since::Version(version)).await) });
        }
        let Some((index, view)) = polls.next().await else {
            return Ok(());
        };
        views[index] = meant.part(view?);
        if !is_settled(&views[index]) {
            waiting.push(index);
        }
    }
}

impl Meant<'_> {
    /// Returns the message with the deliveries that are meant.
    fn part(&self, mut view: MessageView) -> MessageView {
        if let Some(nodes) = self.nodes {
            view.deliveries
                .retain(|delivery| nodes.contains(&delivery.node));
        }
        view
    }
}

fn is_settled(view: &MessageView) -> bool {
    view.deliveries
        .iter()
        .all(|delivery| delivery.state.is_final())
}

#[derive(Clone, Copy)]
enum Since {
    Now,
    Version(u64),
}

/// Looks at one message; outlives a restart of the station.
async fn look(client: &Client, id: MessageId, since: Since) -> Result<MessageView, ClientError> {
    let path = format!("/messages/{id}");
    let query = Query::new().with("brief", true);
    match since {
        Since::Now => {
            let path = query.on(&path);
            again(client, AWAY, is_passing, || client.get(&path)).await
        }
        Since::Version(version) => {
            let query = query.with("after", version).with("wait", POLL.as_secs());
            let path = query.on(&path);
            again(client, AWAY, is_passing, || client.get_waiting(&path, POLL)).await
        }
    }
}

/// Returns a message with its outputs; asks again for `limit` where the station fails.
///
/// # Errors
///
/// Fails when the station does not know it, or fails for longer.
pub(crate) async fn whole(
    client: &Client,
    id: MessageId,
    limit: Duration,
) -> Result<MessageView, ClientError> {
    let path = format!("/messages/{id}");
    again(client, limit, is_passing, || client.get(&path)).await
}

/// Returns the id that begins with `prefix`. A station that is not there is not waited for.
///
/// # Errors
///
/// Fails when no message has it, or several.
pub(crate) async fn find(
    client: &Client,
    prefix: &str,
    patience: Patience,
) -> Result<MessageId, ClientError> {
    let path = Query::new()
        .with("brief", true)
        .on(&format!("/messages/{}", encode(prefix)));
    let asked = again(client, patience.away(), ClientError::is_trouble, || {
        client.get(&path)
    });
    asked.await.map(|view: MessageView| view.id)
}

/// Tells whether the same question may be answered in a moment.
fn is_passing(error: &ClientError) -> bool {
    error.is_away() || error.is_trouble()
}

/// Asks until there is an answer, or errors that `passes` calls passing have come for `limit`.
async fn again<T, F>(
    client: &Client,
    limit: Duration,
    passes: fn(&ClientError) -> bool,
    ask: impl Fn() -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut failing = None;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if !passes(&error) => return Err(error),
            Err(error) => error,
        };
        let since = *failing.get_or_insert_with(Instant::now);
        if since.elapsed() < limit {
            sleep(RETRY).await;
        } else if error.is_trouble() {
            // Out of reach for the caller's purpose: it answers, but not what was asked.
            return Err(client.lost(&format!("it is in trouble: {error}")));
        } else {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_a_duration_or_none() {
        assert_eq!(
            Patience::parse("5m"),
            Ok(Patience::Limit(Duration::from_secs(300)))
        );
        assert_eq!(Patience::parse("none"), Ok(Patience::Forever));
        assert!(Patience::parse("0s").is_err());
        assert!(Patience::parse("5").is_err());
        assert!(Patience::Forever.deadline() > Instant::now());
        assert!(Patience::Limit(Duration::MAX).deadline() > Instant::now());
    }
}
