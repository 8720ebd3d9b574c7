//! `rserpool client`: clients of the services that have a protocol of their own.

mod calcapp;
mod pingpong;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rserpool::{PoolHandle, Session};

use crate::commands::terminal::explain_session;
use crate::options::{self, RegistrarOption, TransportOption};

/// Use a service: pingpong or calcapp (`rserpool terminal` is for the others)
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    client: Client,
}

#[derive(Debug, Subcommand)]
enum Client {
    Pingpong(pingpong::Arguments),
    Calcapp(calcapp::Arguments),
}

/// Arguments that all clients share: the registrars and the transport.
#[derive(Debug, Args)]
struct Service {
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
}

impl Service {
    async fn open(&self, pool: PoolHandle) -> anyhow::Result<Session> {
        let network = self.transport.network()?;
        let user = self.registrar.user(&network, &self.transport, options::impatient).await?;
        user.open(pool).await.map_err(explain_session)
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let work = async {
        match arguments.client {
            Client::Pingpong(arguments) => pingpong::run(arguments).await,
            Client::Calcapp(arguments) => calcapp::run(arguments).await,
        }
    };
    tokio::select! {
        result = work => result.map(|()| ExitCode::SUCCESS),
        () = options::wait_for_end(false) => Ok(ExitCode::SUCCESS),
    }
}
