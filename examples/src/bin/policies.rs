//! Defines two custom selection policies with private numbers: one sorts the elements, the other
//! weights them. Registrar and user implement them; the servers register their policy parameters,
//! and may change them.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin policies -- --runtime smol
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rserpool::proto::policy::{ByOrder, ByWeight, Order, Policies, Weight};
use rserpool::{
    HuntConfig, Network, PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle,
    PoolUser, Registrar, RegistrarConfig, ResolveOptions, TransportAddress, UserConfig,
};

/// Custom policy: servers register the cost and the duration of a request. Servers with lower cost
/// come first; at equal cost, faster ones do.
#[derive(Debug, Clone, Copy)]
struct Cheapest;

impl Order for Cheapest {
    fn policy_type(&self) -> PolicyType {
        PolicyType(0x8000_0001)
    }

    fn words(&self) -> usize {
        2
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        u64::from(parameters.words()[0]) << 32 | u64::from(parameters.words()[1])
    }
}

/// Custom policy: servers register how many processors they have and how many are busy, and receive
/// work in proportion to their idle processors.
#[derive(Debug, Clone, Copy)]
struct Idle;

impl Weight for Idle {
    fn policy_type(&self) -> PolicyType {
        PolicyType(0x8000_0002)
    }

    fn words(&self) -> usize {
        2
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[0].saturating_sub(parameters.words()[1])
    }
}

fn main() -> anyhow::Result<()> {
    rserpool_examples::run(policies)
}

async fn policies(network: Network) -> anyhow::Result<()> {
    let policies = Policies::default().with(ByOrder(Cheapest)).with(ByWeight(Idle));
    let config = RegistrarConfig::default().policies(policies.clone());
    let registrar = Registrar::start(&network, ["127.0.0.1:0"], config)?;
    let at = registrar.local_address();
    let hunt = HuntConfig::new([at.clone()]);
    let user = PoolUser::with_config(&network, UserConfig::new(hunt).policies(policies))?;

    let pool: PoolHandle = "CheapPool".parse()?;
    let say = |cost, time| PolicyParameters::new(Cheapest.policy_type(), &[cost, time]);
    let servers = start(&network, &pool, at, [say(5, 10), say(3, 70), say(3, 20)]).await?;
    println!("cheapest first:   {:?}", order(&user, &pool, NOW).await?);
    assert_eq!(order(&user, &pool, NOW).await?, [3, 2, 1]);
    servers[0].control().set_policy(say(1, 90)).await?;
    while order(&user, &pool, NOW).await? != [1, 3, 2] {}
    println!("1 became cheaper: {:?}", order(&user, &pool, EARLIER).await?);

    let pool: PoolHandle = "IdlePool".parse()?;
    let say = |all, busy| PolicyParameters::new(Idle.policy_type(), &[all, busy]);
    let servers = start(&network, &pool, at, [say(8, 6), say(4, 0), say(2, 2)]).await?;
    println!("2, 4 and 0 idle:  {:?} of 600 requests each", firsts(&user, &pool).await?);
    servers[2].control().set_policy(say(2, 0)).await?;
    while order(&user, &pool, NOW).await?.len() < 3 {}
    println!("2, 4 and 2 idle:  {:?} of 600 requests each", firsts(&user, &pool).await?);
    Ok(())
}

/// Starts three servers, one for each of `parameters`, with the identifiers 1, 2 and 3.
async fn start(
    network: &Network,
    pool: &PoolHandle,
    registrar: &TransportAddress,
    parameters: [PolicyParameters; 3],
) -> anyhow::Result<Vec<PoolElement>> {
    let mut servers = Vec::new();
    for (name, policy) in (1..).map(PoolElementId).zip(parameters) {
        let server = PoolElement::builder(network, pool, [registrar])
            .configure(|config| config.identifier(name).policy(policy))
            .start()?;
        server.registered().await?;
        servers.push(server);
    }
    Ok(servers)
}

/// Maximum age of the registrar's answer when resolving. With `NOW`, the user asks the registrar
/// each time, and the registrar selects. With `EARLIER`, the user asks once, and selects among the
/// elements that it received.
const NOW: Duration = Duration::ZERO;
const EARLIER: Duration = Duration::from_secs(60);

/// Returns the identifiers of the servers, in the order in which to use them.
async fn order(user: &PoolUser, pool: &PoolHandle, max_age: Duration) -> anyhow::Result<Vec<u32>> {
    let options = ResolveOptions::default().max_age(max_age);
    let elements = user.resolve(pool.clone(), options).await?;
    Ok(elements.iter().map(|element| element.identifier.0).collect())
}

/// Counts how often each server comes first: when the registrar selects, and when the user selects.
async fn firsts(user: &PoolUser, pool: &PoolHandle) -> anyhow::Result<BTreeMap<u32, [u32; 2]>> {
    let mut counts: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
    for (who, max_age) in [NOW, EARLIER].into_iter().enumerate() {
        for _ in 0..600 {
            if let Some(first) = order(user, pool, max_age).await?.first() {
                counts.entry(*first).or_default()[who] += 1;
            }
        }
    }
    Ok(counts)
}
