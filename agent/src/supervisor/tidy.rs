//! Keeps the commands' directories within the budget: looks at what is there, asks the journal how far
//! the orders are, removes what nobody needs. So it does with what was received of files.
//!
//! It acts on what is there and not on what happened, so a restart is nothing special to it. What it
//! removes is at most what a command wrote: how it ended is in the journal by then.

use std::{sync::Arc, time::Duration};

use steward_protocol::MessageId;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::context::Context;
use crate::{
    child::{
        Place,
        nursery::{Kept, Nursery},
    },
    journal::Fate,
    keeper::{KeeperError, chain},
    signals::Stop,
    transfer::{parts::Parts, stream},
};

/// How often it is looked without anything having changed: confirmations come without a word.
const LOOK: Duration = Duration::from_secs(60);

/// Wait between two looks, however much changes.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes on the disk up to which all of an output was in the answer, whose first and last bytes are
/// more than that.
const TOLD: u64 = 48 * 1024;

/// Tidies until the agent ends.
pub(crate) async fn run(context: Arc<Context>) {
    context.nursery.cgroups().tidy(&context.config.node);
    let mut stop = context.stop.clone();
    tokio::select! {
        () = tidy(&context) => {}
        _ = stop.wait_for(|stop| *stop != Stop::No) => {}
    }
}

async fn tidy(context: &Context) {
    let mut clearing = None;
    loop {
        let tidied = async {
            round(context).await?;
            clear_parts(context, &mut clearing).await
        };
        match tidied.await {
            Err(KeeperError::Gone) => return,
            Err(error) => tracing::debug!(error = chain(&error), "nothing was tidied"),
            Ok(()) => {}
        }
        sleep(PAUSE).await;
        timeout(LOOK, context.nursery.changed()).await.ok();
    }
}

async fn round(context: &Context) -> Result<(), KeeperError> {
    let kept = blocking(&context.nursery, |nursery| nursery.list()).await;
    let kept = match kept {
        Some(Ok(kept)) => kept,
        Some(Err(error)) => {
            tracing::warn!(%error, "the commands' directories cannot be listed");
            return Ok(());
        }
        None => return Ok(()),
    };
    let ids = kept.iter().filter_map(|kept| kept.id).collect();
    let mut fates = context.keeper.fates(ids).await?.into_iter();
    let judged: Vec<(Kept, Fate)> = kept
        .into_iter()
        .map(|kept| {
            let known = kept.id.and_then(|_| fates.next());
            let fate = known.unwrap_or(Fate::Forgotten);
            // Nobody else has an output that is still to go to the station.
            let fate = if stream::is_awaited(kept.place.dir()) {
                fate.max(Fate::Over)
            } else {
                fate
            };
            (kept, fate)
        })
        .collect();
    let surplus = surplus(&judged, context.config.results_budget);
    if surplus.is_empty() {
        return Ok(());
    }
    blocking(&context.nursery, move |nursery| {
        for place in surplus {
            tracing::debug!(dir = %place.dir().display(), "a command's directory is removed");
            if let Err(error) = nursery.remove(&place) {
                tracing::warn!(error = chain(&error), "a command's directory stays");
            }
        }
    })
    .await;
    Ok(())
}

/// Removes what orders that are over left of the files they received. Their disks are not the agent's own
/// and may hang, so nobody waits for it.
async fn clear_parts(
    context: &Context,
    clearing: &mut Option<JoinHandle<()>>,
) -> Result<(), KeeperError> {
    let parts = Parts::of(&context.config.state_dir);
    let notes = parts.clone();
    let noted = blocking(&context.nursery, move |_| notes.noted()).await;
    let noted = noted.unwrap_or_default();
    let is_at_work = |task: &JoinHandle<()>| !task.is_finished();
    if noted.is_empty() || clearing.as_ref().is_some_and(is_at_work) {
        return Ok(());
    }
    let fates = context.keeper.fates(noted.clone()).await?;
    let known = noted.into_iter().zip(fates);
    let over: Vec<MessageId> = known
        .filter(|(_, fate)| *fate != Fate::Open)
        .map(|(id, _)| id)
        .collect();
    *clearing = Some(tokio::task::spawn_blocking(move || {
        over.into_iter().for_each(|id| parts.clear(id));
    }));
    Ok(())
}

/// Does something with the disk without holding up the other tasks.
async fn blocking<T: Send + 'static>(
    nursery: &Nursery,
    work: impl FnOnce(&Nursery) -> T + Send + 'static,
) -> Option<T> {
    let nursery = nursery.clone();
    tokio::task::spawn_blocking(move || work(&nursery))
        .await
        .ok()
}

/// Tells whether a command's directory holds nothing that its answer did not say.
fn is_told(kept: &Kept, fate: Fate) -> bool {
    fate == Fate::Forgotten && (kept.id.is_none() || kept.bytes <= TOLD)
}

/// Returns what is to go: what the journal does not know and nobody can ask for, and of the rest the
/// oldest until the budget holds, forgotten ones first, then confirmed ones. What is not over stays.
fn surplus(judged: &[(Kept, Fate)], budget: u64) -> Vec<Place> {
    let (told, rest): (Vec<_>, Vec<_>) =
        judged.iter().partition(|(kept, fate)| is_told(kept, *fate));
    let of = |fate: Fate| rest.iter().filter(move |(_, found)| *found == fate);
    let mut gone: Vec<Place> = told.iter().map(|(kept, _)| kept.place.clone()).collect();
    let mut bytes: u64 = rest.iter().map(|(kept, _)| kept.bytes).sum();
    let forgotten = of(Fate::Forgotten).chain(of(Fate::Confirmed));
    for (kept, _) in forgotten.chain(of(Fate::Over)) {
        if bytes <= budget {
            break;
        }
        bytes -= kept.bytes;
        gone.push(kept.place.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_goes_then_the_oldest_confirmed_then_the_oldest_and_never_what_runs() {
        let row = |name: &str, bytes, fate| {
            let kept = Kept {
                place: Place::new(name),
                id: None,
                bytes,
            };
            (kept, fate)
        };
        let judged = [
            row("over", 10, Fate::Over),
            row("told", 10, Fate::Confirmed),
            row("runs", 10, Fate::Open),
            row("gone", 10, Fate::Forgotten),
            row("late", 10, Fate::Confirmed),
        ];
        for (budget, expected) in [
            (40, vec!["gone"]),
            (39, vec!["gone", "told"]),
            (20, vec!["gone", "told", "late"]),
            (19, vec!["gone", "told", "late", "over"]),
            (0, vec!["gone", "told", "late", "over"]),
        ] {
            let expected: Vec<Place> = expected.into_iter().map(Place::new).collect();
            assert_eq!(surplus(&judged, budget), expected, "{budget}");
        }
    }

    #[test]
    fn what_the_journal_has_forgotten_stays_within_the_budget_where_the_answer_said_only_a_part_of_it()
     {
        let row = |name: &str, bytes, fate| {
            let kept = Kept {
                place: Place::new(name),
                id: Some(steward_protocol::MessageId(uuid::Uuid::from_u128(1))),
                bytes,
            };
            (kept, fate)
        };
        let judged = [
            row("told", TOLD, Fate::Confirmed),
            row("short", TOLD, Fate::Forgotten),
            row("long", TOLD + 1, Fate::Forgotten),
        ];
        for (budget, expected) in [
            (2 * TOLD + 1, vec!["short"]),
            (2 * TOLD, vec!["short", "long"]),
        ] {
            let expected: Vec<Place> = expected.into_iter().map(Place::new).collect();
            assert_eq!(surplus(&judged, budget), expected, "{budget}");
        }
    }
}
