//! Tells systemd the state of the registrar, if systemd waits for that: sd_notify(3).

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use rserpool::{Registrar, RegistrarStatus};
use tokio::time::{sleep, timeout};

/// Interval between two reports, unless the watchdog of systemd needs shorter ones.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reports to systemd.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    ready: Cell<bool>,
}

impl Supervisor {
    /// Reports that the registrar is ready, which it is once it knows the others, and then that it is
    /// alive.
    pub(super) async fn report(&self, registrar: &Registrar) -> Infallible {
        if !is_expected() {
            return std::future::pending().await;
        }
        let interval = watchdog().map_or(INTERVAL, |time| (time / 3).min(INTERVAL));
        if registrar.ready().await.is_ok() {
            self.ready.set(true);
            tell(&State::Ready);
        }
        loop {
            // Without an answer, the watchdog runs out.
            if let Ok(Ok(status)) = timeout(interval, registrar.status()).await {
                tell(&State::Alive(&summary(&status)));
            }
            sleep(interval).await;
        }
    }

    /// Reports that the settings are being read again.
    pub(super) fn tell_reloading(&self) {
        if self.ready.get() {
            tell(&State::Reloading);
        }
    }

    /// Reports that the settings were read again.
    pub(super) fn tell_reloaded(&self) {
        if self.ready.get() {
            tell(&State::Ready);
        }
    }

    /// Reports that the registrar hands its elements to others.
    pub(super) fn tell_stopping(&self) {
        tell(&State::Stopping);
    }
}

/// A state that systemd knows.
enum State<'s> {
    Ready,
    Reloading,
    Stopping,
    /// The registrar's task answers. The text is for people.
    Alive(&'s str),
}

fn summary(status: &RegistrarStatus) -> String {
    let RegistrarStatus { pools, elements, peers, .. } = status;
    format!("{pools} pools, {elements} elements, {} other registrars", peers.len())
}

/// Returns whether systemd waits for reports.
fn is_expected() -> bool {
    cfg!(target_os = "linux") && std::env::var_os("NOTIFY_SOCKET").is_some()
}

#[cfg(target_os = "linux")]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    None
}

#[cfg(target_os = "linux")]
fn tell(state: &State<'_>) {
    use sd_notify::NotifyState;
    let told = match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        State::Alive(text) => {
            sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(text)])
        }
    };
    if let Err(error) = told {
        tracing::debug!(%error, "cannot tell systemd");
    }
}

/// Does nothing, since there is no systemd.
#[cfg(not(target_os = "linux"))]
fn tell(_: &State<'_>) {}
