//! Tests of a runtime.

use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;

use crate::Network;

/// Checks that a timer is never early, and that a reset timer fires at its new deadline, whether
/// later or sooner.
pub async fn timers_fire_in_time_and_can_be_reset(network: Network) {
    let runtime = network.runtime();
    let start = runtime.now();
    let ms = Duration::from_millis;
    let mut timer = runtime.timer(start + ms(20));
    timer.as_mut().await;
    assert!(runtime.now() >= start + ms(20));
    // The timer has fired, so it is ready at once when it is polled again.
    timer.as_mut().await;

    let start = runtime.now();
    timer.as_mut().reset(start + ms(30));
    timer.as_mut().await;
    assert!(runtime.now() >= start + ms(30));

    let start = runtime.now();
    let mut late = runtime.timer(start + Duration::from_secs(3600));
    late.as_mut().reset(start + ms(10));
    late.as_mut().await;
    // Set a deadline in the past.
    late.as_mut().reset(start);
    late.as_mut().await;
}

/// Checks that tasks run to completion although there are no handles to them, and wake each other
/// across threads.
pub async fn tasks_run_and_wake_each_other(network: Network) {
    let (sender, mut receiver) = mpsc::channel(1);
    for number in 0..100_u32 {
        let mut sender = sender.clone();
        let runtime = network.runtime().clone();
        network.runtime().spawn(Box::pin(async move {
            let deadline = runtime.now() + Duration::from_millis(u64::from(number % 7));
            runtime.timer(deadline).await;
            futures::SinkExt::send(&mut sender, number).await.expect("the receiver waits");
        }));
    }
    drop(sender);
    let mut numbers = Vec::new();
    while let Some(number) = receiver.next().await {
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}
