//! Commands of an operator to a registrar, over its control socket or its HTTP interface.

pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod peers;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rserpool::PoolHandle;
use serde_json::Value;

use crate::http::{self, Server};
use crate::status;

/// The control socket of a registrar that the system's service manager started.
const CONTROL: &str = "/run/rserpool/control";

/// The usual address of a registrar's HTTP interface.
const ADMIN: &str = "127.0.0.1:9900";

/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Maximum time of a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The option for the registrar.
#[derive(Debug, Clone, Args)]
pub(crate) struct AtOption {
    /// The registrar: the path of its control socket (see `rserpool registrar --control`), or the address
    /// of its HTTP interface (see --admin), which takes no orders [default: /run/rserpool/control if
    /// there is one, otherwise 127.0.0.1:9900]
    #[arg(long, value_name = "PATH or HOST:PORT")]
    at: Option<Server>,
}

impl AtOption {
    fn server(&self) -> Server {
        // A socket that this user may not look at is there, too.
        let missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let usual = || match std::fs::metadata(CONTROL).is_err_and(missing) {
            true => Server::Tcp(ADMIN.to_owned()),
            false => Server::Unix(CONTROL.into()),
        };
        self.at.clone().unwrap_or_else(usual)
    }

    /// Asks the registrar for a document, or gives it an order.
    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let server = self.server();
        let exchange = http::exchange(&server, method, path, MAX_ANSWER);
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        let answer = answer.context("no answer in time").and_then(|answer| answer);
        let (code, body) = answer.map_err(|error| {
            status::unreachable(format!(
                "no registrar at {server}: {error:#}; start it with `rserpool registrar --control PATH`, \
                 or --admin {ADMIN} if no orders are needed, and say where with --at"
            ))
        })?;
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        if !document.is_object() {
            return Err(status::unreachable(format!(
                "{server} is not that of a registrar: see --at"
            )));
        }
        let reason = document["error"].as_str().unwrap_or("no reason");
        match code {
            StatusCode::OK => Ok(document),
            StatusCode::NOT_FOUND => Err(status::no_pool(reason.to_owned())),
            StatusCode::CONFLICT => {
                let home = document["home_registrar"].as_str();
                let home = home.map(|home| format!(": ask registrar {home}"));
                Err(status::refused(format!("{reason}{}", home.unwrap_or_default())))
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                let text = format!("{server} takes no orders: use the socket of `--control`");
                Err(status::refused(text))
            }
            _ => bail!("{reason} (HTTP status {code})"),
        }
    }
}

/// Returns the path of a pool in the interface.
fn path_of(pool: &PoolHandle) -> String {
    format!("/v1/pools/{}", percent_encode(pool.as_bytes(), NON_ALPHANUMERIC))
}
