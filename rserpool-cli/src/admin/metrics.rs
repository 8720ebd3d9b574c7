//! Metrics in the text format of Prometheus.

use std::fmt::Write;

use rserpool::proto::registrar::{Limit, RemovalReason};
use rserpool::{AccessRole, PeerCondition, PoolStatus, RegistrarStatus};

use super::json;

/// Number of pools up to which each pool has a metric of its own.
pub(super) const MAX_POOLS: usize = 10_000;

/// Returns all metrics.
pub(super) fn text(name: Option<&str>, status: &RegistrarStatus, pools: &[PoolStatus]) -> String {
    let mut out = Metrics(String::new());
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    out.metric("build_info", "gauge", "The version of the program.", [(version, 1)]);
    let of = labels(&[
        ("identifier", &status.identifier.to_string()),
        ("name", name.unwrap_or_default()),
    ]);
    let help = "The identifier and the name of the registrar.";
    out.metric("registrar_info", "gauge", help, [(of, 1)]);
    let gauges = [
        (
            "joined",
            u64::from(status.joined),
            "Whether the registrar has the handlespace of the others.",
        ),
        ("ready", u64::from(status.ready), "Whether elements have had time to register."),
        ("pools", status.pools as u64, "Pools."),
        ("elements", status.elements as u64, "Elements of all pools."),
        ("own_elements", status.own_elements as u64, "Elements whose home this registrar is."),
        (
            "connections",
            status.connections as u64,
            "Connections of elements, users and registrars.",
        ),
        ("subscriptions", status.subscriptions as u64, "Subscriptions of users to pools."),
    ];
    for (name, value, help) in gauges {
        out.metric(&format!("registrar_{name}"), "gauge", help, [(String::new(), value)]);
    }
    let conditions = [
        PeerCondition::Alive,
        PeerCondition::Suspected,
        PeerCondition::TakenOver,
        PeerCondition::Inactive,
    ];
    let peers = conditions.map(|condition| {
        let count = status.peers.iter().filter(|peer| peer.condition == condition).count();
        (label("condition", json::condition(condition)), count as u64)
    });
    out.metric("registrar_peers", "gauge", "Other registrars, by their condition.", peers);
    let counters = &status.counters;
    for (name, value, help) in json::counters(counters) {
        let name = format!("registrar_{name}_total");
        out.metric(&name, "counter", help, [(String::new(), value)]);
    }
    let removals = RemovalReason::ALL
        .map(|reason| (label("reason", json::reason(reason)), counters.removals(reason)));
    out.metric(
        "registrar_removals_total",
        "counter",
        "Elements that were removed, by the reason.",
        removals,
    );
    let denials =
        AccessRole::ALL.map(|role| (label("role", &role.to_string()), counters.denials(role)));
    out.metric(
        "registrar_denials_total",
        "counter",
        "Connections and requests that were denied for want of a role.",
        denials,
    );
    let limits =
        Limit::ALL.map(|limit| (label("limit", json::limit(limit)), counters.limit_hits(limit)));
    out.metric(
        "registrar_limit_hits_total",
        "counter",
        "Requests that were refused since a limit was reached.",
        limits,
    );
    let pools =
        pools.iter().map(|pool| (label("pool", &pool.handle.to_string()), pool.elements as u64));
    out.metric("pool_elements", "gauge", "Elements of a pool.", pools);
    out.0
}

fn label(name: &str, value: &str) -> String {
    labels(&[(name, value)])
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        format!("{name}=\"{value}\"")
    };
    format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(","))
}

struct Metrics(String);

impl Metrics {
    fn metric(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP rserpool_{name} {help}\n# TYPE rserpool_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "rserpool_{name}{labels} {value}");
        }
    }
}
