//! The gate chunks leave by: one at a time, and no more bytes per second than are allowed. Knows
//! nothing of what leaves.
//!
//! Nothing is saved up: after a pause there is one chunk at once, and then the rate again. A command's
//! answer does not come this way.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep_until},
};

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// When the next chunk may leave; held by the one that is leaving.
    next: Mutex<Instant>,
    /// Bytes per second, if not as many as the link takes.
    rate: Option<u64>,
}

/// The right to leave. The next chunk waits until this is dropped.
#[derive(Debug)]
#[must_use = "the gate is free again when this is dropped"]
pub(super) struct Leave<'a>(
    #[expect(dead_code, reason = "it is held, not used")] MutexGuard<'a, Instant>,
);

impl Gate {
    /// Returns a gate for `rate` bytes per second.
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            next: Mutex::new(Instant::now()),
            rate,
        }
    }

    /// Waits until a chunk of `bytes` bytes may leave.
    pub(super) async fn pass(&self, bytes: usize) -> Leave<'_> {
        let mut next = self.next.lock().await;
        if let Some(rate) = self.rate {
            sleep_until(*next).await;
            let time = Duration::from_secs_f64(seconds(bytes, rate));
            *next = Instant::now() + time;
        }
        Leave(next)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "neither is anywhere near 2^52 bytes"
)]
fn seconds(bytes: usize, rate: u64) -> f64 {
    bytes as f64 / rate.max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::Mutex as AsyncMutex, task::JoinSet, time::sleep};

    use super::*;

    const RATE: u64 = 64 << 10;

    /// Lets several lanes send chunks of these sizes, each all of them. Returns when which size left.
    async fn leave(
        gate: &Arc<Gate>,
        lanes: usize,
        sizes: &'static [usize],
    ) -> Vec<(Instant, usize)> {
        let left = Arc::new(AsyncMutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for _ in 0..lanes {
            let (gate, left) = (Arc::clone(gate), Arc::clone(&left));
            tasks.spawn(async move {
                for bytes in sizes {
                    let _leave = gate.pass(*bytes).await;
                    left.lock().await.push((Instant::now(), *bytes));
                }
            });
        }
        while let Some(joined) = tasks.join_next().await {
            joined.expect("no panic");
        }
        let left = left.lock().await;
        left.clone()
    }

    /// Between any two chunks no more left than the rate allows for that time.
    fn obeys(left: &[(Instant, usize)], rate: u64) {
        for (first, (begin, _)) in left.iter().enumerate() {
            let mut bytes = 0;
            for (at, size) in &left[first..] {
                let time = seconds(bytes, rate);
                let took = at.duration_since(*begin).as_secs_f64();
                assert!(took >= time - 1e-6, "{bytes} bytes in {took} s: {left:?}");
                bytes += size;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_lanes_together_send_no_faster_than_the_rate_and_not_much_slower() {
        let gate = Arc::new(Gate::new(Some(RATE)));
        let left = leave(&gate, 3, &[64 << 10, 1, 10_000, 0, 64 << 10]).await;
        assert_eq!(left.len(), 15);
        obeys(&left, RATE);
        let last = left.last().expect("some");
        let bytes: usize = left.iter().map(|(_, size)| size).sum();
        let least = seconds(bytes - last.1, RATE);
        let took = last.0.duration_since(left[0].0).as_secs_f64();
        // The clock's ticks are a millisecond, and every chunk may wait for one.
        assert!(took <= least + 0.015, "{took} s for {least} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_nothing_up() {
        let gate = Arc::new(Gate::new(Some(RATE)));
        let mut left = leave(&gate, 1, &[64 << 10, 64 << 10]).await;
        sleep(Duration::from_secs(3600)).await;
        left.extend(leave(&gate, 2, &[64 << 10, 64 << 10]).await);
        obeys(&left, RATE);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits_but_for_the_chunk_that_is_leaving() {
        let gate = Arc::new(Gate::new(None));
        let left = leave(&gate, 3, &[1 << 30, 1 << 30]).await;
        assert_eq!(
            left.first().map(|left| left.0),
            left.last().map(|left| left.0)
        );
        let leaving = gate.pass(1).await;
        let next = tokio::time::timeout(Duration::from_secs(1), gate.pass(1)).await;
        assert!(next.is_err(), "two leave at once");
        drop(leaving);
        let _next = gate.pass(1).await;
    }
}
