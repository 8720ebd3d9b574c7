//! Orders about single elements:
//!
//! | order | request |
//! |---|---|
//! | drain | `POST /v1/pools/POOL/elements/ELEMENT/drain` |
//! | end of that | `DELETE /v1/pools/POOL/elements/ELEMENT/drain` |
//! | deregister | `DELETE /v1/pools/POOL/elements/ELEMENT` |

use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use rserpool::proto::registrar::NotHome;
use rserpool::{OrderError, Registrar};
use serde_json::json;

use super::{Body, Refusal, found, handle};
use crate::options;

/// Gives the registrar the order of a request, and returns whether that changed something.
pub(super) async fn give(
    registrar: &Registrar,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    let mut parts = path.strip_prefix("/v1/pools/").unwrap_or_default().split('/');
    let (Some(pool), Some("elements"), Some(element)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::NotFound("no such order"));
    };
    let pool = handle(pool)?;
    let element =
        options::identifier(element).map_err(|_| Refusal::Invalid("not an identifier"))?;
    let changed = match (request.method(), parts.next(), parts.next()) {
        (&Method::POST, Some("drain"), None) => registrar.drain(&pool, element, true).await?,
        (&Method::DELETE, Some("drain"), None) => registrar.drain(&pool, element, false).await?,
        (&Method::DELETE, None, None) => {
            registrar.deregister(&pool, element).await?;
            true
        }
        _ => return Err(Refusal::NotFound("no such order")),
    };
    tracing::info!(target: "rserpool::notice", order = %request.method(), path, "order of an operator");
    Ok(found(&json!({ "changed": changed })))
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NotHome(NotHome::Elsewhere(home)) => Self::Elsewhere(home),
            OrderError::NotHome(_) => Self::NotFound("no such element"),
            _ => Self::Stopped,
        }
    }
}
