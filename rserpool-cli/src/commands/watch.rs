//! `rserpool watch`.

use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use rserpool::{PoolChange, PoolHandle, ResolveError, ResolveOptions};
use serde_json::json;

use super::resolve::explain_resolve;
use crate::options::{self, RegistrarOption, TransportOption};
use crate::table;

/// Show the elements of a pool, and its changes as they happen, until Ctrl-C
///
/// The registrar tells of the changes, so it has to be one of this implementation.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Print a line of JSON for each change
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let user = arguments.registrar.user(&network, &arguments.transport, options::impatient).await?;
    match user.resolve(arguments.pool.clone(), ResolveOptions::default()).await {
        Ok(_) => {}
        Err(ResolveError::UnknownPool(pool)) => notify!("there is no pool {pool} yet; waiting"),
        Err(error) => return Err(explain_resolve(error)),
    }
    let mut changes = user.subscribe(arguments.pool).await.map_err(explain_resolve)?;
    while let Some(change) = changes.next().await {
        let (what, identifier, element) = match change {
            PoolChange::Joined(element) => ("joined", element.identifier, Some(element)),
            PoolChange::Changed(element) => ("changed", element.identifier, Some(element)),
            PoolChange::Left(identifier) => ("left", identifier, None),
            _ => continue,
        };
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let identifier = identifier.to_string();
        let element = serde_json::to_value(element)?;
        if arguments.json {
            let change = json!({ "time": time, "change": what, "identifier": identifier, "element": element });
            out!("{change}");
        } else if element.is_null() {
            out!("{time}  {what:7}  {identifier}");
        } else {
            let (address, values) = (table::address(&element), table::values(&element["policy"]));
            out!("{time}  {what:7}  {identifier}  {address}  {values}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
