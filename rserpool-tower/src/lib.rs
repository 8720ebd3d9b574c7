//! Pools for [tower](https://docs.rs/tower): a client of HTTP, gRPC or any other protocol with a
//! [`tower::Service`] uses the servers of a pool according to the pool's policy, and continues with
//! another one when a server crashes.
//!
//! | item | use |
//! |---|---|
//! | [`PoolConnector`] | connector for hyper, tonic: the policy selects an element per connection |
//! | [`PoolHttp`] | client for HTTP and gRPC: the policy selects an element per request |
//! | [`PoolService`] | client for any other protocol: the policy selects an element per request |
//! | [`RequestService`] | client of a replicated service: each request is executed exactly once |
//! | [`PoolDiscover`] | stream of the pool's changes for tower's own balancers |
//! | `balance_channel` (feature `tonic`) | tonic channel that balances over the elements itself |
//!
//! The following gRPC client uses a pool; two lines differ from a client that does not:
//!
//! ```no_run
//! use rserpool::{Network, PoolUser};
//! use rserpool::transport::Tcp;
//! use rserpool_tokio::TokioRuntime;
//! use rserpool_tower::PoolConnector;
//!
//! # async fn client() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::new(TokioRuntime::current(), Tcp::new());
//! let user = PoolUser::new(&network, ["127.0.0.1:3863"])?;
//! let connector = PoolConnector::new(user, "GreeterPool".parse()?);
//! let channel = tonic::transport::Endpoint::from_static("http://GreeterPool")
//!     .connect_with_connector_lazy(connector);
//! # drop(channel);
//! # Ok(())
//! # }
//! ```
//!
//! The servers need no changes. They join the pool by a [`PoolElement`](rserpool::PoolElement) that
//! [registers their address](rserpool::PoolElementBuilder::serving_at).

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "tonic")]
mod balance_channel;
mod body;
mod connector;
mod discover;
mod http;
mod members;
mod permits;
#[cfg(feature = "service")]
mod request;
mod service;

use std::net::SocketAddr;

use rserpool::TransportProtocol;
use rserpool::proto::wire::PoolElement;

#[cfg(feature = "tonic")]
pub use balance_channel::balance_channel;
pub use connector::{ConnectError, PoolConnector, PoolStream};
pub use discover::PoolDiscover;
pub use http::PoolHttp;
#[cfg(feature = "service")]
pub use request::RequestService;
pub use service::{PoolService, PoolServiceError, Resend, ResendService};

/// Returns the TCP addresses at which an element serves; none if it does not serve over TCP.
fn addresses(element: &PoolElement) -> Vec<SocketAddr> {
    let address = element.user_transport.address();
    let address = address.filter(|address| address.protocol == TransportProtocol::Tcp);
    address.into_iter().flat_map(|address| address.socket_addresses()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_can_be_shared_by_threads() {
        fn check<T: Send + Sync>() {}
        check::<PoolConnector>();
        check::<PoolDiscover<fn(SocketAddr)>>();
        check::<PoolHttp<()>>();
        check::<PoolService<(), ()>>();
        check::<ResendService<(), ()>>();
        #[cfg(feature = "service")]
        check::<RequestService>();
    }
}
