//! Replicated services as services of tower.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rserpool::{Bytes, RequestClient, RequestError};
use tower::Service;

/// A [`RequestClient`] as a [`tower::Service`]: each request is executed exactly once, in the order of
/// the calls. It is ready when the session has room for another request.
#[derive(Debug, Clone)]
pub struct RequestService(RequestClient);

impl RequestService {
    /// Returns the client as a service. Clones share its session.
    #[must_use]
    pub fn new(client: RequestClient) -> Self {
        Self(client)
    }
}

impl Service<Bytes> for RequestService {
    type Response = Bytes;
    type Error = RequestError;
    type Future = BoxFuture<'static, Result<Bytes, RequestError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Bytes) -> Self::Future {
        Box::pin(self.0.start(request))
    }
}
