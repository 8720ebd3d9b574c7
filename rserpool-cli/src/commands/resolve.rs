//! `rserpool resolve`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use rserpool::{PoolElementId, PoolHandle, PoolUser, ResolveError, ResolveOptions};

use crate::options::{self, RegistrarOption, TransportOption};
use crate::status;

/// Show the elements of a pool, in the order in which to use them
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Number of elements to ask for; the registrar may return fewer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    items: Option<u32>,
    /// Resolve this number of times, and show how often each element was the first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    times: Option<u32>,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Print the elements as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let user = arguments.registrar.user(&network, &arguments.transport, options::impatient).await?;
    let mut resolve_options = ResolveOptions::default();
    if let Some(items) = arguments.items {
        resolve_options = resolve_options.items(items);
    }
    if let Some(times) = arguments.times {
        let pool = arguments.pool;
        return tally(&user, &pool, &resolve_options, times, arguments.json).await;
    }
    let elements = user.resolve(arguments.pool, resolve_options).await.map_err(explain_resolve)?;
    if arguments.json {
        out!("{}", serde_json::to_string(&elements)?);
        return Ok(ExitCode::SUCCESS);
    }
    if elements.is_empty() {
        out!("the pool has elements, but its policy offers none of them");
    }
    for element in elements {
        out!(
            "{}  {}  {}  registered with {}",
            element.identifier,
            element.user_transport,
            element.policy,
            element.home_registrar
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn tally(
    user: &PoolUser,
    pool: &PoolHandle,
    options: &ResolveOptions,
    times: u32,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut first: BTreeMap<PoolElementId, u32> = BTreeMap::new();
    for _ in 0..times {
        let elements =
            user.resolve(pool.clone(), options.clone()).await.map_err(explain_resolve)?;
        if let Some(element) = elements.first() {
            *first.entry(element.identifier).or_default() += 1;
        }
    }
    if as_json {
        let counts: BTreeMap<_, _> =
            first.iter().map(|(identifier, count)| (identifier.to_string(), count)).collect();
        out!("{}", serde_json::to_string(&counts)?);
    } else {
        for (identifier, count) in first {
            out!("{identifier}  {count}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Explains why a pool was not resolved, and what to do about it.
pub(crate) fn explain_resolve(error: ResolveError) -> anyhow::Error {
    let advice = match &error {
        ResolveError::UnknownPool(_) => {
            "no element is registered under this handle, or all are drained; `rserpool serve` starts one"
        }
        ResolveError::NoRegistrar(_) => {
            "start one with `rserpool registrar`, or say where it is with --registrar"
        }
        _ => return error.into(),
    };
    status::explain(error, advice)
}
