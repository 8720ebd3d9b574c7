//! `rserpool registrar`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use rserpool::driver::{Registrar, random_registrar_id};
use rserpool::protocol::registrar::RegistrarConfig;
use rserpool::wire::TransportAddress;
use serde_json::json;

use crate::options::{self, TransportOption};

/// Run a registrar, where servers register and clients look for them
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to offer ASAP, to servers and clients
    #[arg(long, value_name = "ADDR", value_parser = options::address,
          default_value = options::DEFAULT_REGISTRAR)]
    asap: SocketAddr,
    /// Do not announce the registrar in the local network. One at a loopback address is not
    #[arg(long)]
    no_announce: bool,
    #[command(flatten)]
    transport: TransportOption,
    /// Print the address as JSON
    #[arg(long)]
    json: bool,
    /// End when standard input ends
    #[arg(long, hide = true)]
    until_eof: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let address = TransportAddress::new(network.protocol(), arguments.asap);
    let mut seed = [0; 8];
    let identifier = random_registrar_id();
    seed[..4].copy_from_slice(&identifier.0.to_be_bytes());
    seed[4..].copy_from_slice(&random_registrar_id().0.to_be_bytes());
    let mut config = RegistrarConfig::new(identifier, u64::from_be_bytes(seed));
    if !arguments.no_announce && !arguments.asap.ip().is_loopback() {
        config = config.announce([]);
    }
    let registrar = Registrar::start(&network, &address, config)
        .map_err(|error| options::explain_listen(error, "--asap"))?;
    let local = registrar.local_address();
    if arguments.json {
        let asap = local.socket_addresses().next().map(|address| address.to_string());
        out!("{}", json!({ "identifier": identifier.to_string(), "asap": asap }));
    } else {
        out!("registrar {identifier} offers ASAP at {local}; Ctrl-C ends it");
    }
    options::wait_for_end(arguments.until_eof).await;
    registrar.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
