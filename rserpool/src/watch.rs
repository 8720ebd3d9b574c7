//! A value that one task changes and others observe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

/// Changes the observed value. The value can no longer change once this is dropped.
#[derive(Debug)]
pub(crate) struct Publisher<T>(Arc<Mutex<Shared<T>>>);

/// Observes the latest value. Values that are replaced before they are read are skipped.
#[derive(Debug, Clone)]
pub(crate) struct Watch<T> {
    shared: Arc<Mutex<Shared<T>>>,
    /// Version of the value that [`Self::changed`] returned last; 0 before the first call.
    seen: u64,
}

#[derive(Debug)]
struct Shared<T> {
    value: T,
    version: u64,
    is_final: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> Publisher<T> {
    pub(crate) fn new(value: T) -> Self {
        let shared = Shared { value, version: 1, is_final: false, waiting: Vec::new() };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// Returns an observer. Its first [`Watch::changed`] returns the current value.
    pub(crate) fn watch(&self) -> Watch<T> {
        Watch { shared: self.0.clone(), seen: 0 }
    }

    pub(crate) fn get(&self) -> T {
        lock(&self.0).value.clone()
    }

    pub(crate) fn set(&self, value: T) {
        let waiting = {
            let mut shared = lock(&self.0);
            shared.value = value;
            shared.version += 1;
            std::mem::take(&mut shared.waiting)
        };
        // Wakes the observers, some of which may read the value at once.
        drop(waiting);
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut shared = lock(&self.0);
            shared.is_final = true;
            std::mem::take(&mut shared.waiting)
        };
        drop(waiting);
    }
}

impl<T: Clone> Watch<T> {
    pub(crate) fn get(&self) -> T {
        lock(&self.shared).value.clone()
    }

    /// Waits for a value that this observer has not returned yet. Returns `None` if there will be
    /// no other one. If the future is dropped, no value is lost.
    pub(crate) async fn changed(&mut self) -> Option<T> {
        loop {
            let wait = {
                let mut shared = lock(&self.shared);
                if shared.version > self.seen {
                    self.seen = shared.version;
                    return Some(shared.value.clone());
                }
                if shared.is_final {
                    return None;
                }
                // Remove the senders to futures that were dropped, so that their number is bounded.
                shared.waiting.retain(|waiting| !waiting.is_canceled());
                let (changed, wait) = oneshot::channel();
                shared.waiting.push(changed);
                wait
            };
            // A dropped sender also means that the value may have changed.
            let _ = wait.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join;

    use super::*;

    #[test]
    fn the_latest_value_is_seen_once() {
        let publisher = Publisher::new(1);
        let mut watch = publisher.watch();
        assert_eq!(watch.changed().now_or_never(), Some(Some(1)));
        assert_eq!(watch.changed().now_or_never(), None);
        publisher.set(2);
        publisher.set(3);
        assert_eq!(watch.get(), 3);
        assert_eq!(watch.changed().now_or_never(), Some(Some(3)));
        assert_eq!(watch.changed().now_or_never(), None);
        drop(publisher);
        assert_eq!(watch.changed().now_or_never(), Some(None));
    }

    #[test]
    fn all_who_wait_are_woken_and_those_who_gave_up_are_forgotten() {
        let publisher = Publisher::new(1);
        let (mut first, mut second) = (publisher.watch(), publisher.watch());
        for _ in 0..100 {
            let _ = first.changed().now_or_never();
        }
        assert_eq!(lock(&publisher.0).waiting.len(), 1);
        let _ = second.changed().now_or_never();
        let mut both = Box::pin(join(first.changed(), second.changed()));
        assert_eq!((&mut both).now_or_never(), None);
        publisher.set(2);
        assert_eq!(both.now_or_never(), Some((Some(2), Some(2))));
    }
}
