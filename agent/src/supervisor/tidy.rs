//! Keeps the commands' directories within the budget: looks at what is there, asks the journal how far
//! the orders are, removes what nobody needs.
//!
//! It acts on what is there and not on what happened, so a restart is nothing special to it. What it
//! removes is at most what a command wrote: how it ended is in the journal by then.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::context::Context;
use crate::{
    child::{
        Place,
        nursery::{Kept, Nursery},
    },
    journal::Fate,
    keeper::{KeeperError, chain},
    signals::Stop,
};

/// How often it is looked without anything having changed: confirmations come without a word.
const LOOK: Duration = Duration::from_secs(60);

/// Wait between two looks, however much changes.
const PAUSE: Duration = Duration::from_secs(1);

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
    loop {
        match round(context).await {
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
            (kept, known.unwrap_or(Fate::Forgotten))
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

/// Returns what is to go: what the journal does not know, and of the rest the oldest until the budget
/// holds, confirmed ones first. What is not over stays.
fn surplus(judged: &[(Kept, Fate)], budget: u64) -> Vec<Place> {
    let of = |fate: Fate| judged.iter().filter(move |(_, found)| *found == fate);
    let mut gone: Vec<Place> = of(Fate::Forgotten)
        .map(|(kept, _)| kept.place.clone())
        .collect();
    let known = judged.iter().filter(|(_, fate)| *fate != Fate::Forgotten);
    let mut bytes: u64 = known.map(|(kept, _)| kept.bytes).sum();
    for (kept, _) in of(Fate::Confirmed).chain(of(Fate::Over)) {
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
}
