//! `rserpool dump`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rserpool::proto::wire::PoolElement;
use rserpool::{Dump, DumpError, TransportAddress, dump};

use crate::options::{self, HostPort, TransportOption};
use crate::{status, table};

/// Time that a registrar may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Show all that a registrar knows: its pools, their elements, other registrars
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// ENRP address of the registrar. The default port is 9901, or 9902 with TLS
    #[arg(value_name = "ADDR", value_parser = options::address,
          default_value = options::DEFAULT_REGISTRAR)]
    enrp: HostPort,
    #[command(flatten)]
    transport: TransportOption,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let address =
        TransportAddress::new(network.protocol(), arguments.transport.enrp(arguments.enrp));
    let dump = dump(&network, &address, TIMEOUT).await.map_err(explain)?;
    if arguments.json {
        out!("{}", serde_json::to_string(&dump)?);
    } else {
        print(&dump)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(dump: &Dump) -> anyhow::Result<()> {
    let elements: usize = dump.pools.iter().map(|pool| pool.elements.len()).sum();
    let checksum = dump.checksum.map(|sum| format!(", own checksum {:#06x}", sum.0));
    out!(
        "registrar {}: {}, {}, {}{}",
        dump.registrar,
        count(dump.pools.len(), "pool"),
        count(elements, "element"),
        count(dump.peers.len(), "other registrar"),
        checksum.unwrap_or_default()
    );
    for peer in &dump.peers {
        out!("registrar {}  {}", peer.registrar, peer.transport);
    }
    for pool in &dump.pools {
        let policy = pool.elements.first().map(|element| element.policy.policy_type().to_string());
        out!("{}  {}", pool.pool_handle, policy.unwrap_or_default());
        let rows: Vec<_> = pool.elements.iter().map(row).collect::<Result<_, _>>()?;
        for line in table::lines(&["ELEMENT", "HOME", "VALUES", "ADDRESS"], &[], &rows) {
            out!("  {line}");
        }
    }
    Ok(())
}

fn row(element: &PoolElement) -> anyhow::Result<Vec<String>> {
    let document = serde_json::to_value(element)?;
    Ok(vec![
        element.identifier.to_string(),
        element.home_registrar.to_string(),
        table::values(&document["policy"]),
        table::address(&document),
    ])
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Explains why there is no dump, and what to do about it.
fn explain(error: DumpError) -> anyhow::Error {
    let advice = match error {
        DumpError::Unreachable(..) | DumpError::Timeout(_) | DumpError::Malformed(..) => {
            "say where the registrar offers ENRP, which is not where it offers ASAP: \
             `rserpool registrar` prints both"
        }
        DumpError::Rejected(_) => "try again in some seconds",
        _ => return error.into(),
    };
    status::explain(error, advice)
}
