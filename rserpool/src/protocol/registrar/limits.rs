//! How often one host may ask and report (RFC 5352 section 9.1, threats 8 and 9).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Registrar, Timer};
use crate::protocol::ConnectionId;

/// How much of its allowance a host may use at once: that of one second.
const WINDOW: Duration = Duration::from_secs(1);

/// What may come only so often.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limited {
    Resolution,
    Report,
}

/// What each host has used, of those that used anything lately.
#[derive(Debug, Default)]
pub(super) struct Limits {
    hosts: HashMap<IpAddr, Usage>,
}

/// Until when the allowance is used, if nothing is left unused.
#[derive(Debug)]
struct Usage {
    resolutions: Instant,
    reports: Instant,
}

impl Limits {
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }
}

impl Registrar {
    /// Whether a client may have this now. Not where its host asks too often: by which
    /// connection makes no difference.
    pub(super) fn allows(&mut self, now: Instant, from: ConnectionId, what: Limited) -> bool {
        let per_second = match what {
            Limited::Resolution => self.config.max_resolutions,
            Limited::Report => self.config.max_reports,
        };
        let (Some(per_second), Some(client)) = (per_second, self.connections.get(&from)) else {
            return true;
        };
        let Some(host) = client.address.addresses.first().copied() else { return true };
        let usage = self.limits.hosts.entry(host).or_insert_with(|| {
            self.timers.set(Timer::Limit(host), now + 2 * WINDOW);
            Usage { resolutions: now, reports: now }
        });
        let until = match what {
            Limited::Resolution => &mut usage.resolutions,
            Limited::Report => &mut usage.reports,
        };
        let next = (*until).max(now) + WINDOW / per_second.max(1);
        let allowed = next <= now + WINDOW;
        if allowed {
            *until = next;
        } else {
            let what = match what {
                Limited::Resolution => "resolves",
                Limited::Report => "reports",
            };
            self.complain(from, format!("{what} more than {per_second} times a second"));
        }
        allowed
    }

    /// Forgets a host that has its whole allowance again.
    pub(super) fn handle_limit_timer(&mut self, now: Instant, host: IpAddr) {
        let Some(usage) = self.limits.hosts.get(&host) else { return };
        if usage.resolutions <= now && usage.reports <= now {
            self.limits.hosts.remove(&host);
        } else {
            self.timers.set(Timer::Limit(host), now + 2 * WINDOW);
        }
    }
}
