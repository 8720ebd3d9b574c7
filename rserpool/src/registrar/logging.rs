//! The log lines of a registrar.

use std::net::IpAddr;
use std::time::Instant;

use rserpool_proto::registrar::{Event, Limit, RemovalReason};
use rserpool_proto::wire::TransportAddress;

use crate::log::{self, note_limited, warn_limited};
use crate::verify::log_denial;

/// Logs an event. Events that others can repeat are logged a few times a minute for each source.
pub(super) fn log(now: Instant, event: Event) {
    match event {
        Event::Registered(element, address) => {
            let (pool, element) = (element.pool_handle, element.identifier);
            tracing::info!(%element, %pool, %address, "registered");
        }
        Event::Reregistered(element) => tracing::debug!(%element, "registered again"),
        Event::Refused(element, response) => {
            let cause = response.error.unwrap_or_default();
            tracing::info!(%element, %cause, "refused");
        }
        Event::Removed(element, reason, address) => {
            let (pool, element) = (element.pool_handle, element.identifier);
            let host = address.as_ref().map_or(log::ANYBODY, TransportAddress::host);
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            match reason {
                RemovalReason::KeepAliveTimeout
                | RemovalReason::Unreachable
                | RemovalReason::Reported
                | RemovalReason::OtherPolicy
                | RemovalReason::Denied => {
                    warn_limited!(now, host, "removed", %element, %pool, address, %reason);
                }
                RemovalReason::Deregistered
                | RemovalReason::Expired
                | RemovalReason::Ordered
                | RemovalReason::ElsewhereRemoved => {
                    tracing::info!(%element, %pool, address, %reason, "removed");
                }
            }
        }
        Event::Drained(element) => {
            let (pool, element) = (element.pool_handle, element.identifier);
            tracing::info!(target: "rserpool::notice", %element, %pool, "drained");
        }
        Event::Undrained(element) => {
            let (pool, element) = (element.pool_handle, element.identifier);
            tracing::info!(target: "rserpool::notice", %element, %pool, "not drained any more");
        }
        Event::Near(element, address) => {
            let (pool, element) = (element.pool_handle, element.identifier);
            warn_limited!(now, address.host(),
                "element hidden from other hosts: they cannot reach its address",
                %pool, %element, %address);
        }
        Event::NotTaken(registrar, reason) => {
            warn_limited!(now, log::ANYBODY, "element from a peer rejected",
                %registrar, reason);
        }
        Event::PeerFound(registrar, _) => tracing::debug!(%registrar, "peer announced"),
        Event::PeerConnected(registrar, address) => {
            note_limited!(now, address.host(), "peer found", %registrar, %address);
        }
        Event::PeerLost(registrar, host) => {
            let host = host.unwrap_or(log::ANYBODY);
            warn_limited!(now, host, "peer lost", %registrar, %host);
        }
        Event::PeerSilent(address) => {
            warn_limited!(now, address.host(), "peer does not answer", %address);
        }
        Event::PeerDead(registrar) => {
            warn_limited!(now, log::ANYBODY, "peer declared dead", %registrar);
        }
        Event::Joined { elements } => tracing::info!(elements, "joined the other registrars"),
        Event::Ready { elements } => {
            note_limited!(now, log::ANYBODY, "ready", elements);
        }
        Event::Behind { late, stretch } => {
            warn_limited!(
                now,
                log::ANYBODY,
                "running late; failure detection suspended",
                ?late,
                stretch
            );
        }
        Event::Denied(denial) => {
            let (identity, pool) = (denial.identity.as_ref(), denial.pool.as_ref());
            log_denial(now, denial.role, denial.host, identity, pool);
        }
        Event::LimitHit(limit, host) => {
            // Each kind of limit is logged separately.
            limit_hit(now, limit, host);
        }
        Event::Crowded { host, closed } => {
            warn_limited!(now, host, "too many connections: closed the longest silent ones",
                %host, closed);
        }
        Event::TookOver { registrar, elements } => {
            warn_limited!(now, log::ANYBODY, "took over", %registrar, elements);
        }
        Event::TakenOver { by } => {
            warn_limited!(now, log::ANYBODY, "taken over by a peer", %by);
        }
        Event::Left => {}
        Event::Misbehaved { peer, reason } => {
            warn_limited!(now, peer.host(), "misbehaved", %peer, reason);
        }
    }
}

fn limit_hit(now: Instant, limit: Limit, host: IpAddr) {
    let kind = match limit {
        Limit::Connections => "limit of connections reached",
        Limit::Elements => "limit of elements reached",
        Limit::Subscriptions => "limit of subscriptions reached",
        Limit::Resolutions => "limit of resolutions reached",
        Limit::Reports => "limit of reports reached",
        Limit::Registrations => "limit of registrations reached",
        Limit::Pages => "limit of handle table pages reached",
        Limit::Dials => "limit of named addresses reached",
        Limit::Peers => "limit of peers reached",
    };
    if let Some(left_out) = log::admit(now, kind, host) {
        let again = (left_out > 0).then_some(left_out);
        tracing::warn!(%host, again, "{kind}");
    }
}
