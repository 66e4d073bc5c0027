//! A supervisor that nobody is left to talk to.

use std::future::poll_fn;

use tokio::time::{sleep, timeout};

use super::*;

/// A process for orders works for a moment; the others wait for ever.
fn working() -> Birth {
    Box::new(|duty, _| {
        Box::pin(async move {
            match duty {
                Duty::Orders => sleep(Duration::from_millis(100)).await,
                _ => std::future::pending().await,
            }
            Ok(Quit::Stopping)
        })
    })
}

#[tokio::test]
async fn when_nobody_is_left_to_stop_it_or_ask_it_the_work_at_hand_is_done_without_spinning() {
    for gone in ["who stops", "who asks", "both"] {
        let (calls, inbox) = mpsc::channel(CALLS);
        let (stop, stopping) = watch::channel(Stop::No);
        let (reports, _reported) = mpsc::channel(64);
        let setup = Setup {
            config: config(""),
            clock: Clock::open().expect("the clocks are there"),
            counters: Arc::new(Counters::default()),
            birth: working(),
            reports,
            calls: inbox,
            stop: stopping,
            runtime: Handle::current(),
            listed: watch::Sender::new(Vec::new()),
            open: vec![GOOD.parse().expect("a subject")],
        };
        let mut supervision = Box::pin(supervise(setup));
        let stop = Some(stop).filter(|_| gone == "who asks");
        let calls = Some(calls).filter(|_| gone == "who stops");
        let mut polls = 0;
        let counted = poll_fn(|context| {
            polls += 1;
            supervision.as_mut().poll(context)
        });
        let ending = timeout(DEADLINE, counted).await;
        assert_eq!(ending.ok(), Some(Ending::Drained), "{gone}");
        assert!(polls < 100, "{gone}: it was polled {polls} times");
        drop((stop, calls));
    }
}
