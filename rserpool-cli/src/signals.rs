//! Signals that this process receives, where there are signals.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of one kind. As soon as they are received here, they do not end the process.
pub(crate) struct Signals {
    #[cfg(unix)]
    signal: Option<Signal>,
}

impl Signals {
    /// Returns the SIGHUP signals, by which an operator tells that files have changed.
    pub(crate) fn hangup() -> Self {
        Self {
            #[cfg(unix)]
            signal: signal(SignalKind::hangup()).ok(),
        }
    }

    /// Returns the SIGUSR1 signals, by which an operator asks for the state in the log.
    pub(crate) fn user_defined() -> Self {
        Self {
            #[cfg(unix)]
            signal: signal(SignalKind::user_defined1()).ok(),
        }
    }

    /// Waits for the next one.
    ///
    /// If the future is dropped, no signal is lost.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
