//! Channels of tonic that balance over a pool.

use std::net::SocketAddr;
use std::pin::pin;

use futures::StreamExt;
use futures::future::select;
use rserpool::Subscription;
use tonic::transport::{Channel, Endpoint, channel};
use tower::discover::Change;

use super::PoolDiscover;

/// Number of changes that wait for the channel.
const CHANGES: usize = 16;

/// Returns a channel that balances over the elements of a pool by tonic's own rule, which prefers
/// the element with the fewest requests under way, and not by the pool's policy. `configure` changes
/// the endpoint of each element, for instance its timeouts. Elements that do not serve over TCP are
/// left out.
///
/// ```no_run
/// # async fn client(user: rserpool::PoolUser) -> Result<(), Box<dyn std::error::Error>> {
/// let subscription = user.subscribe("GreeterPool").await?;
/// let channel = rserpool_tower::balance_channel(subscription, |endpoint| endpoint);
/// # drop(channel);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics if called outside of a tokio runtime, as tonic's channels do.
pub fn balance_channel(
    subscription: Subscription,
    mut configure: impl FnMut(Endpoint) -> Endpoint + Send + Unpin + 'static,
) -> Channel {
    let endpoint = move |address: SocketAddr| {
        let uri = format!("http://{address}");
        configure(Endpoint::from_shared(uri).expect("an address is a valid authority"))
    };
    let mut changes = PoolDiscover::new(subscription, endpoint);
    let (channel, sender) = Channel::balance_channel(CHANGES);
    tokio::spawn(async move {
        let closed = pin!(sender.closed());
        let forward = async {
            while let Some(Ok(change)) = changes.next().await {
                let change = match change {
                    Change::Insert(element, endpoint) => channel::Change::Insert(element, endpoint),
                    Change::Remove(element) => channel::Change::Remove(element),
                };
                if sender.send(change).await.is_err() {
                    break;
                }
            }
        };
        select(closed, pin!(forward)).await;
    });
    channel
}
