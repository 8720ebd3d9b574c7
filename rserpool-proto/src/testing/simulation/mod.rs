//! Simulates registrars, elements and users in virtual time, with faults that are drawn from a
//! seed.
//!
//! A run consists of rounds. In each round, faults are inflicted at random. Then there are no
//! faults for a while, and the rules are checked. The same seed gives the same run.

mod clock;
mod cluster;
mod invariants;
mod network;
mod plan;
mod report;
mod trace;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::Ppid;
use rand::RngExt;
use rand::seq::IndexedRandom;

use cluster::Cluster;
use plan::Discovery;
pub use report::Tally;

/// Result of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The time of the first violation of a rule, and its description; `None` if all rules held.
    pub violation: Option<(Duration, String)>,
    /// Trace of the run, one line for each event, if it was asked for.
    pub trace: Vec<String>,
    /// Statistics of the run.
    pub tally: Tally,
}

/// The maximum time after the last fault until all registrars agree.
const BOUND: Duration = Duration::from_secs(45);

/// The maximum time until all registrars agree after adversaries sent ENRP messages. The checksum
/// does not cover the values of an element, so wrong values stay until the element renews its
/// registration.
const BOUND_AFTER_ENRP: Duration = Duration::from_secs(120);

/// The maximum time that a user waits for an answer: three requests of 3 s each, and room for the
/// error of its clock.
const ANSWER: Duration = Duration::from_secs(10);

/// Time within which all registrars learn of a change if there are no faults.
const SOON: Duration = Duration::from_secs(1);

/// Time within which users receive an answer. A user may have to search for a registrar first, and
/// some of the configured registrars may be in another part of the network.
const FOUND: Duration = Duration::from_secs(3);

/// Runs the simulation that `seed` determines. If `adversary` is given, some hosts send arbitrary
/// messages of that protocol.
///
/// Adversaries that send ASAP messages cannot harm honest hosts: all rules hold while they run.
/// Registrars believe adversaries that send ENRP messages, which can do harm. The harm is repaired
/// within the bound after they stop.
#[must_use]
pub fn run(seed: u64, adversary: Option<Ppid>, trace: bool) -> Outcome {
    let mut cluster = Cluster::new(seed, adversary, trace);
    let end = simulate(&mut cluster);
    if let Err(violation) = end {
        cluster.network.violate(violation);
    }
    let plan = &cluster.plan;
    let traffic = &cluster.network.traffic;
    let discovery = match plan.discovery {
        Discovery::Configured => "all registrars configured",
        Discovery::WellKnown(_) => "one or two registrars configured",
        Discovery::Multicast => "announcements only",
        Discovery::Both => "announcements and one registrar configured",
    };
    let kinds = [
        format!("transport: {}", plan.protocol),
        format!("discovery: {discovery}"),
        format!("profile: {:?}", plan.compatibility),
        format!("clocks: at most {} ppm off", plan.skew),
        format!("policies: {}", if plan.quarrel { "of several kinds" } else { "of one kind" }),
    ];
    let sizes = [plan.registrars, plan.elements, plan.users].map(|size| size as u64);
    let mut tally = Tally::one(kinds, sizes);
    tally.add(std::mem::take(&mut cluster.tally));
    tally.simulated = cluster.network.now();
    tally.messages = traffic.messages.values().sum();
    tally.steps = traffic.steps;
    let now = cluster.network.now();
    Outcome {
        violation: cluster.network.violation.take().map(|what| (now, what)),
        trace: cluster.network.trace.take(),
        tally,
    }
}

fn simulate(cluster: &mut Cluster) -> Result<(), String> {
    for round in 0..=cluster.plan.rounds {
        // In the first round, there are no faults: it waits until all hosts have started.
        if round > 0 {
            disturb(cluster);
        }
        settle(cluster)?;
        observe(cluster)?;
    }
    finish(cluster)
}

fn stop_if_violated(cluster: &Cluster) -> Result<(), String> {
    cluster.network.violation.clone().map_or(Ok(()), Err)
}

/// Inflicts faults.
fn disturb(cluster: &mut Cluster) {
    for host in cluster.adversaries.clone() {
        if cluster.network.role(host).is_none() {
            cluster.start(host);
        }
    }
    for _ in 0..cluster.rng.random_range(1..=cluster.plan.faults_each) {
        let fault = *cluster.plan.faults.choose(&mut cluster.rng).expect("there are some");
        cluster.inflict(fault);
        for _ in 0..cluster.rng.random_range(0..3) {
            let pause = cluster.rng.random_range(Duration::ZERO..cluster.plan.pause);
            cluster.run(pause / 2);
            cluster.work();
        }
        let pause = cluster.rng.random_range(Duration::ZERO..cluster.plan.pause);
        cluster.run(pause);
    }
}

/// Ends the faults, and checks that all registrars agree and all users are answered within the
/// bound. Some hosts may stay without a process, and the network may stay partitioned.
fn settle(cluster: &mut Cluster) -> Result<(), String> {
    cluster.network.mend();
    let believed = cluster.plan.adversary == Some(Ppid::ENRP);
    for host in 0..cluster.network.hosts().len() {
        cluster.network.resume(host);
        if believed && cluster.adversaries.contains(&host) {
            cluster.network.kill(host);
            continue;
        }
        if cluster.network.role(host).is_none() && cluster.rng.random_bool(0.7) {
            cluster.start(host);
        }
    }
    if cluster.rng.random_bool(0.15) {
        cluster.part();
    }
    let begun = cluster.network.now();
    let mut settled = Duration::ZERO;
    let mut last = Ok(());
    let bound = if believed { BOUND_AFTER_ENRP } else { BOUND };
    while cluster.network.now() < begun + bound {
        cluster.run(SOON);
        stop_if_violated(cluster)?;
        last = cluster.agreement();
        if last.is_err() {
            settled = cluster.network.now() - begun;
        }
    }
    last?;
    cluster.tally.settled.push(settled);
    let overdue = cluster.asked.iter().find(|((user, _), asked)| {
        cluster.network.is_running(*user) && **asked < cluster.network.now() - ANSWER
    });
    match overdue {
        Some(((user, _), _)) => {
            let name = &cluster.network.hosts()[*user].name;
            Err(format!("{name} has waited for an answer for more than {ANSWER:?}"))
        }
        None => Ok(()),
    }
}

/// The type of ENRP_HANDLE_TABLE_REQUEST.
const HANDLE_TABLE_REQUEST: (u32, u8) = (Ppid::ENRP.0, 2);

/// Checks that, without faults, all registrars learn of changes soon and none requests a handle
/// table again.
fn observe(cluster: &mut Cluster) -> Result<(), String> {
    if cluster.plan.quarrel {
        // Elements that a registrar refused register again at any time, and may then be accepted.
        return Ok(());
    }
    let asked = |cluster: &Cluster| {
        cluster.network.traffic.messages.get(&HANDLE_TABLE_REQUEST).copied().unwrap_or(0)
    };
    let requests = asked(cluster);
    cluster.network.traffic.keep_alives.clear();
    for _ in 0..5 {
        match cluster.rng.random_range(0..4) {
            0 => cluster.leave(),
            1 => {}
            _ => cluster.change_policy(),
        }
        cluster.run(SOON);
        stop_if_violated(cluster)?;
        cluster.agreement()?;
        check_answers(cluster)?;
        cluster.run(Duration::from_secs(2));
        stop_if_violated(cluster)?;
        cluster.agreement()?;
    }
    cluster.check_keep_alives()?;
    let more = asked(cluster) - requests;
    // Adversaries register the same element with several registrars, and only an audit (comparison
    // of checksums) corrects that.
    if more > 0 && cluster.plan.adversary.is_none() {
        return Err(format!("{more} handle tables were requested without a fault"));
    }
    if cluster.rng.random_bool(0.3) {
        // After a registrar leaves, its elements have another home registrar within `FOUND`.
        cluster.registrar_leaves();
        cluster.run(FOUND);
        stop_if_violated(cluster)?;
        cluster.agreement()?;
    }
    Ok(())
}

/// Checks that users receive the elements that exist.
fn check_answers(cluster: &mut Cluster) -> Result<(), String> {
    let pool = cluster.rng.random_range(0..cluster.plan.pools.len());
    let asked = cluster.ask(pool);
    cluster.run(FOUND);
    stop_if_violated(cluster)?;
    for part in cluster.parts() {
        let truth = cluster.truth(&part);
        let handle = cluster::handle(pool);
        let members: Vec<_> =
            truth.keys().filter(|(its, _)| *its == handle).map(|(_, id)| *id).collect();
        for (user, request) in asked.iter().filter(|(user, _)| part.users.contains(user)) {
            let name = &cluster.network.hosts()[*user].name;
            let Some(answer) = cluster.answers.get(&(*user, *request)) else {
                return Err(format!("{name} is not answered within {FOUND:?}"));
            };
            let mut given: Vec<_> = match answer {
                Ok(elements) => elements.iter().map(|element| element.identifier).collect(),
                Err(_) => Vec::new(),
            };
            given.sort_unstable();
            if given != members {
                return Err(format!("{name} was given {answer:?}, there are {members:?}"));
            }
            let told = cluster.told.get(&(*user, handle.clone()));
            let told: BTreeMap<_, _> = told
                .into_iter()
                .flatten()
                .map(|element| ((handle.clone(), element.identifier), element.policy.clone()))
                .collect();
            if !told.iter().eq(truth.iter().filter(|((its, _), _)| *its == handle)) {
                return Err(format!("{name} was told of {told:?}, there are {members:?}"));
            }
        }
    }
    cluster.answers.clear();
    Ok(())
}

/// Makes all elements and users leave, and checks that registrars hold nothing of them any more.
fn finish(cluster: &mut Cluster) -> Result<(), String> {
    cluster.network.mend();
    cluster.run(BOUND);
    stop_if_violated(cluster)?;
    let elements: Vec<_> = cluster.elements.keys().copied().collect();
    for host in elements {
        if cluster.network.role(host).is_some() && cluster.elements[&host].wants {
            cluster.deregister(host);
        }
    }
    for host in cluster.users.iter().chain(&cluster.adversaries).copied().collect::<Vec<_>>() {
        cluster.network.kill(host);
    }
    cluster.run(BOUND);
    stop_if_violated(cluster)?;
    cluster.check_leaks()?;
    for host in cluster.registrars.clone() {
        if cluster.network.role(host).is_some() {
            cluster.end_registrar(host);
            cluster.run(SOON);
            stop_if_violated(cluster)?;
            cluster.agreement()?;
        }
    }
    Ok(())
}
