//! Tells systemd the state of the registrar, if systemd waits for that: sd_notify(3).

use std::convert::Infallible;
use std::time::Duration;

use rserpool::{Registrar, RegistrarStatus};
use tokio::time::{sleep, timeout};

/// Interval between two reports, unless the watchdog of systemd needs shorter ones.
const INTERVAL: Duration = Duration::from_secs(5);

/// A state that systemd knows.
pub(super) enum State<'s> {
    /// The registrar knows its peers, and answers.
    Ready,
    /// The settings are being read again.
    Reloading,
    /// The registrar hands its elements to others.
    Stopping,
    /// The registrar's task answers. The text is for people.
    Alive(&'s str),
}

/// Reports that the registrar is ready, and then that it is alive.
pub(super) async fn report(registrar: &Registrar) -> Infallible {
    let interval = watchdog().map_or(INTERVAL, |time| (time / 3).min(INTERVAL));
    if registrar.ready().await.is_ok() {
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

fn summary(status: &RegistrarStatus) -> String {
    let RegistrarStatus { pools, elements, peers, .. } = status;
    format!("{pools} pools, {elements} elements, {} other registrars", peers.len())
}

#[cfg(target_os = "linux")]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    None
}

/// Reports a state.
#[cfg(target_os = "linux")]
pub(super) fn tell(state: &State<'_>) {
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

/// There is no systemd.
#[cfg(not(target_os = "linux"))]
pub(super) fn tell(_: &State<'_>) {}
