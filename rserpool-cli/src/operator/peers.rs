//! `rserpool peers`.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::AtOption;
use crate::table::{self, seconds, text};

/// Show a registrar, and the other registrars as it sees them
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    at: AtOption,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let status = arguments.at.ask(Method::GET, "/v1/status").await?;
    let mut peers = arguments.at.ask(Method::GET, "/v1/peers").await?;
    let peers = peers["peers"].take();
    if arguments.json {
        out!("{}", json!({ "registrar": status, "peers": peers }));
        return Ok(ExitCode::SUCCESS);
    }
    let name = status["name"].as_str().map(|name| format!("{} ", table::printable(name)));
    let state = match (status["joined"] == true, status["ready"] == true) {
        (true, true) => "ready",
        (true, false) => "waits for elements to register",
        (false, _) => "downloads the handlespace",
    };
    out!(
        "registrar {}{}: {state}, {}, {} ({} its own)",
        name.unwrap_or_default(),
        text(&status["identifier"]),
        count(&status["pools"], "pool"),
        count(&status["elements"], "element"),
        text(&status["own_elements"])
    );
    let row = |peer: &serde_json::Value| {
        let link = if peer["connected"] == true { "yes" } else { "no" };
        vec![
            text(&peer["identifier"]),
            text(&peer["condition"]).replace('_', " "),
            link.to_owned(),
            seconds(&peer["heard_seconds"]),
            text(&peer["elements"]),
            text(&peer["address"]),
        ]
    };
    let rows: Vec<_> = peers.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        out!("no other registrars");
    } else {
        let head = ["PEER", "CONDITION", "CONNECTED", "HEARD", "ELEMENTS", "ADDRESS"];
        table::print(&head, &[3, 4], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn count(number: &serde_json::Value, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
