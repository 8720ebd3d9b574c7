//! Measures the memory of idle sessions, at each end.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rserpool::Network;
use rserpool_proto::session::SessionConfig;
use rserpool_proto::wire::Ppid;

use super::{pool, start};

struct Counting;

/// Number of allocated bytes: of the client's end, and of the server's end.
static ALLOCATED: [AtomicIsize; 2] = [AtomicIsize::new(0), AtomicIsize::new(0)];

thread_local! {
    static SIDE: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let side = SIDE.try_with(Cell::get).unwrap_or(0);
    ALLOCATED[side].fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: every method passes its arguments to the system's allocator unchanged.
#[allow(unsafe_code, reason = "there is no other way to count what is allocated")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller upholds the contract of the method, which is that of the system's
        // allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller upholds the contract of the method, which is that of the system's
        // allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Future whose allocations are counted as the server's.
struct AtServer<F>(Pin<Box<F>>);

impl<F: Future> Future for AtServer<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = SIDE.replace(1);
        let result = self.0.as_mut().poll(cx);
        SIDE.set(before);
        result
    }
}

fn held() -> [isize; 2] {
    [0, 1].map(|side| ALLOCATED[side].load(Ordering::Relaxed))
}

/// Opens `sessions` sessions, sends and receives one message on each, and prints the memory that
/// each holds then.
pub async fn measure(network: &Network, sessions: usize) {
    let (_registrar, mut element, user) = start(network).await;
    let runtime = network.runtime().clone();
    let spawner = runtime.clone();
    runtime.spawn(Box::pin(AtServer(Box::pin(async move {
        loop {
            let session = element.accept().await.unwrap();
            spawner.spawn(Box::pin(AtServer(Box::pin(super::echo::serve(session)))));
        }
    }))));
    let mut open = Vec::with_capacity(sessions);
    let before = held();
    for _ in 0..sessions {
        let cached = SessionConfig::default().max_age(Duration::from_secs(60));
        let mut session = user.open_with(pool(), cached).await.unwrap();
        super::echo::once(&mut session, Ppid::NONE, vec![0; 16].into()).await;
        open.push(session);
    }
    let after = held();
    println!("Bytes for each of {sessions} idle sessions over the memory transport");
    for (side, name) in ["client, the vector that holds it included", "server, its task included"]
        .into_iter()
        .enumerate()
    {
        let own = if side == 0 { size_of_val(&open[0]) } else { 0 };
        let each = (after[side] - before[side]) / sessions as isize;
        println!("{name:44}{:>8}", each + own as isize);
    }
}
