//! The documents of the interface.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rserpool::proto::policy::Rank;
use rserpool::proto::registrar::{
    ElementForecast, ElementName, Event, Forecast, Limit, RemovalReason,
};
use rserpool::{
    AccessRole, ElementStatus, Identity, PeerCondition, PeerStatus, PoolStatus, RegistrarCounters,
    RegistrarEvent, RegistrarStatus,
};
use serde_json::{Map, Value, json};

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn names(identity: Option<&Identity>) -> Option<Vec<&str>> {
    identity.map(|identity| identity.names().collect())
}

/// Returns the name of a condition in documents and metrics.
pub(super) fn condition(condition: PeerCondition) -> &'static str {
    match condition {
        PeerCondition::Alive => "alive",
        PeerCondition::Suspected => "suspected",
        PeerCondition::TakenOver => "taken_over",
        PeerCondition::Inactive => "inactive",
        _ => "other",
    }
}

/// Returns the name of a reason in documents and metrics.
pub(super) fn reason(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Deregistered => "deregistered",
        RemovalReason::Expired => "expired",
        RemovalReason::KeepAliveTimeout => "keep_alive_timeout",
        RemovalReason::Unreachable => "unreachable",
        RemovalReason::Reported => "reported",
        RemovalReason::OtherPolicy => "other_policy",
        RemovalReason::ElsewhereRemoved => "removed_elsewhere",
        RemovalReason::Denied => "denied",
        RemovalReason::Ordered => "ordered",
    }
}

/// Returns the name of a limit in documents and metrics.
pub(super) fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Connections => "connections",
        Limit::Elements => "elements",
        Limit::Subscriptions => "subscriptions",
        Limit::Resolutions => "resolutions",
        Limit::Reports => "reports",
        Limit::Registrations => "registrations",
        Limit::Pages => "pages",
        Limit::Dials => "dials",
        Limit::Peers => "peers",
    }
}

/// Returns the counters without labels, with their names in documents and metrics, and what they
/// count.
pub(super) fn counters(counters: &RegistrarCounters) -> [(&'static str, u64, &'static str); 11] {
    [
        ("registrations", counters.registrations, "Elements that joined a pool."),
        ("renewals", counters.renewals, "Registrations that were renewed."),
        ("refusals", counters.refusals, "Registrations that were refused."),
        ("resolutions", counters.resolutions, "Resolutions that were requested."),
        (
            "failed_resolutions",
            counters.failed_resolutions,
            "Resolutions that were answered with an error.",
        ),
        ("keep_alives", counters.keep_alives, "Keep-alives that were sent to elements."),
        ("keep_alive_acks", counters.keep_alive_acks, "Keep-alives that were answered."),
        ("reports", counters.reports, "Reports that an element is unreachable."),
        ("enrp_messages", counters.enrp_messages, "Messages of other registrars."),
        ("takeovers", counters.takeovers, "Registrars whose elements were taken over."),
        ("violations", counters.violations, "Connections that violated ASAP or ENRP."),
    ]
}

pub(super) fn status(name: Option<&str>, status: &RegistrarStatus) -> Value {
    let of = &status.counters;
    let mut counted: Map<_, _> =
        counters(of).iter().map(|(name, count, _)| ((*name).to_owned(), json!(count))).collect();
    let removals = RemovalReason::ALL.map(|it| (reason(it).to_owned(), json!(of.removals(it))));
    let denials = AccessRole::ALL.map(|role| (role.to_string(), json!(of.denials(role))));
    let limits = Limit::ALL.map(|it| (limit(it).to_owned(), json!(of.limit_hits(it))));
    counted.insert("removals".to_owned(), Value::Object(removals.into_iter().collect()));
    counted.insert("denials".to_owned(), Value::Object(denials.into_iter().collect()));
    counted.insert("limit_hits".to_owned(), Value::Object(limits.into_iter().collect()));
    json!({
        "identifier": status.identifier.to_string(),
        "name": name,
        "joined": status.joined,
        "ready": status.ready,
        "pools": status.pools,
        "elements": status.elements,
        "own_elements": status.own_elements,
        "connections": status.connections,
        "subscriptions": status.subscriptions,
        "peers": status.peers.len(),
        "counters": counted,
    })
}

pub(super) fn peer(peer: &PeerStatus) -> Value {
    json!({
        "identifier": peer.identifier.to_string(),
        "condition": condition(peer.condition),
        "address": peer.address.as_ref().map(ToString::to_string),
        "connected": peer.connected,
        "heard_seconds": seconds(peer.heard),
        "elements": peer.elements,
        "identity": names(peer.identity.as_ref()),
    })
}

pub(super) fn pool(pool: &PoolStatus) -> Value {
    json!({
        "handle": pool.handle,
        "path": format!("/v1/pools/{}", percent_encode(pool.handle.as_bytes(), NON_ALPHANUMERIC)),
        "policy": pool.policy.to_string(),
        "transport": pool.transport.map(|transport| transport.to_string()),
        "elements": pool.elements,
    })
}

pub(super) fn element(status: &ElementStatus) -> Value {
    json!({
        "element": status.element,
        "registered_seconds": status.registered.map(seconds),
        "heard_seconds": status.heard.map(seconds),
        "asked": status.asked,
        "doubted": status.doubted,
        "drained": status.drained,
        "owner": names(status.owner.as_ref()),
    })
}

pub(super) fn forecast(forecast: &Forecast) -> Value {
    let element = |it: &ElementForecast| {
        let mut content = element(&it.element);
        let rank = match it.rank {
            Some(Rank::Key(key)) => json!({ "key": key }),
            Some(Rank::Weight(weight)) => json!({ "weight": weight }),
            _ => Value::Null,
        };
        content["rank"] = rank;
        content["first"] = json!(it.first);
        content["offered"] = json!(it.offered);
        content
    };
    json!({
        "pool": pool(&forecast.pool),
        "items": forecast.items,
        "resolutions": forecast.resolutions,
        "next": forecast.next.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "elements": forecast.elements.iter().map(element).collect::<Vec<_>>(),
    })
}

/// Returns the name of an event, and its document.
pub(super) fn event(event: &RegistrarEvent) -> (&'static str, Value) {
    let (name, mut content) = match event {
        RegistrarEvent::Missed(count) => ("missed", json!({ "events": count })),
        RegistrarEvent::Happened(event) => happened(event),
    };
    content["time"] =
        json!(chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    (name, content)
}

fn happened(event: &Event) -> (&'static str, Value) {
    let of = |name: &ElementName| json!({ "pool": name.pool_handle, "element": name.identifier.to_string() });
    let with = |name: &ElementName, key: &str, value: Value| {
        let mut content = of(name);
        content[key] = value;
        content
    };
    let at = |host: &Option<IpAddr>| host.map(|host| host.to_string());
    match event {
        Event::Registered(name, address) => {
            ("registered", with(name, "address", json!(address.to_string())))
        }
        Event::Reregistered(name) => ("renewed", of(name)),
        Event::Refused(name, response) => {
            let error = response.error.as_ref().map(ToString::to_string);
            ("refused", with(name, "error", json!(error)))
        }
        Event::Removed(name, why, address) => {
            let mut content = with(name, "reason", json!(reason(*why)));
            content["address"] = json!(address.as_ref().map(ToString::to_string));
            ("removed", content)
        }
        Event::NotTaken(registrar, why) => {
            ("not_taken", json!({ "registrar": registrar.to_string(), "reason": why }))
        }
        Event::PeerFound(registrar, host) => {
            ("peer_announced", json!({ "registrar": registrar.to_string(), "host": at(host) }))
        }
        Event::PeerConnected(registrar, address) => (
            "peer_connected",
            json!({ "registrar": registrar.to_string(), "address": address.to_string() }),
        ),
        Event::PeerLost(registrar, host) => {
            ("peer_lost", json!({ "registrar": registrar.to_string(), "host": at(host) }))
        }
        Event::PeerSilent(address) => ("peer_silent", json!({ "address": address.to_string() })),
        Event::PeerDead(registrar) => ("peer_dead", json!({ "registrar": registrar.to_string() })),
        Event::Drained(name) => ("drained", of(name)),
        Event::Undrained(name) => ("undrained", of(name)),
        Event::Near(name, address) => ("hidden", with(name, "address", json!(address.to_string()))),
        Event::Joined { elements } => ("joined", json!({ "elements": elements })),
        Event::Ready { elements } => ("ready", json!({ "elements": elements })),
        Event::Behind { late, stretch } => {
            ("behind", json!({ "late_seconds": seconds(*late), "stretch": stretch }))
        }
        Event::Denied(denial) => (
            "denied",
            json!({
                "role": denial.role.to_string(),
                "host": denial.host.to_string(),
                "identity": names(denial.identity.as_ref()),
                "pool": denial.pool,
            }),
        ),
        Event::LimitHit(which, host) => {
            ("limit_hit", json!({ "limit": limit(*which), "host": host.to_string() }))
        }
        Event::Crowded { host, closed } => {
            ("crowded", json!({ "host": host.to_string(), "closed": closed }))
        }
        Event::TookOver { registrar, elements } => {
            ("took_over", json!({ "registrar": registrar.to_string(), "elements": elements }))
        }
        Event::TakenOver { by } => ("taken_over", json!({ "by": by.to_string() })),
        Event::Left => ("left", json!({})),
        Event::Misbehaved { peer, reason } => {
            ("misbehaved", json!({ "peer": peer.to_string(), "reason": reason }))
        }
    }
}
