//! `rserpool drain` and `rserpool deregister`.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use rserpool::{PoolElementId, PoolHandle};

use super::{AtOption, path_of};
use crate::options;

/// Keep new sessions away from an element, for instance before its server is updated
///
/// The element stays registered and its sessions go on, but users and other registrars are not told of
/// it any more. Its home registrar takes the order. The element is not drained any more if that registrar
/// is restarted, if the element was removed, or if it registers with another registrar.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    element: ElementArguments,
    /// Let users have the element again
    #[arg(long)]
    undo: bool,
}

/// Remove an element that its registrar still believes in
///
/// Its home registrar takes the order. An element that is alive registers again: use `rserpool drain` to
/// keep users away from it.
#[derive(Debug, Args)]
pub(crate) struct DeregisterArguments {
    #[command(flatten)]
    element: ElementArguments,
}

#[derive(Debug, Args)]
struct ElementArguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Identifier of the element, as `rserpool resolve` prints it
    #[arg(value_name = "ELEMENT", value_parser = options::identifier)]
    element: PoolElementId,
    #[command(flatten)]
    at: AtOption,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl ElementArguments {
    async fn order(
        &self,
        method: Method,
        suffix: &str,
        text: [&str; 2],
    ) -> anyhow::Result<ExitCode> {
        let path = format!("{}/elements/{}{suffix}", path_of(&self.pool), self.element);
        let answer = self.at.ask(method, &path).await?;
        if self.json {
            out!("{answer}");
        } else {
            let text = text[usize::from(answer["changed"] == true)];
            out!("{} of {}: {text}", self.element, self.pool);
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) async fn drain(arguments: DrainArguments) -> anyhow::Result<ExitCode> {
    let DrainArguments { element, undo } = arguments;
    if undo {
        element.order(Method::DELETE, "/drain", ["was not drained", "not drained any more"]).await
    } else {
        element.order(Method::POST, "/drain", ["is drained already", "drained"]).await
    }
}

pub(crate) async fn deregister(arguments: DeregisterArguments) -> anyhow::Result<ExitCode> {
    arguments.element.order(Method::DELETE, "", ["was not there", "removed"]).await
}
