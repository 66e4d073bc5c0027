//! The pulse of a process: fed by its own loop, felt by the watchdog.
//!
//! It belongs to the process's own task and to no other: what the tasks of its methods do neither feeds
//! it nor keeps it from being fed, so that a slow method is not taken for a loop that stands still.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::futures::TaskLocalFuture, task_local, time::sleep};

/// How often an idle loop feeds its pulse within the time after which it counts as standing still.
const BEATS: u32 = 4;

task_local! {
    static OWN: Arc<Pulse>;
}

/// How far a process's loop has come.
#[derive(Debug)]
pub struct Pulse {
    beats: AtomicU64,
    interval: Duration,
}

impl Pulse {
    /// Returns the pulse of a process that counts as standing still after `wedged_after`.
    pub fn new(wedged_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            beats: AtomicU64::new(0),
            interval: wedged_after / BEATS,
        })
    }

    /// Returns how often it has been fed.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Returns the wait between two looks of the watchdog.
    pub(super) fn interval(wedged_after: Duration) -> Duration {
        wedged_after / BEATS
    }

    /// Makes this the pulse of a process.
    pub(super) fn of<F: Future>(self: Arc<Self>, life: F) -> TaskLocalFuture<Arc<Self>, F> {
        OWN.scope(self, life)
    }
}

/// Says that the loop of this process has come further.
pub fn beat() {
    // Whoever is no process has no pulse.
    OWN.try_with(|pulse| pulse.beats.fetch_add(1, Ordering::Relaxed))
        .ok();
}

/// Feeds the pulse, then returns when it is to be fed again; never, in what is no process. A loop waits
/// for this beside everything else it waits for.
pub async fn rest() {
    beat();
    match OWN.try_with(|pulse| pulse.interval) {
        Ok(interval) => sleep(interval).await,
        Err(_) => pending().await,
    }
}

/// Waits for something slow that answers in the end, like a disk, without standing still.
pub async fn hold<F: Future>(waited: F) -> F::Output {
    let mut waited = pin!(waited);
    loop {
        tokio::select! {
            biased;
            output = &mut waited => return output,
            () = rest() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(40);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_feeds_its_pulse_and_what_its_methods_do_does_not() {
        let pulse = Pulse::new(AFTER);
        let life = async {
            hold(sleep(Duration::from_secs(35))).await;
            tokio::spawn(async {
                beat();
                hold(sleep(Duration::from_secs(100))).await;
            })
            .await
            .expect("no panic");
        };
        Arc::clone(&pulse).of(life).await;
        // At 0 s, 10 s, 20 s and 30 s.
        assert_eq!(pulse.beats(), 4);
    }
}
