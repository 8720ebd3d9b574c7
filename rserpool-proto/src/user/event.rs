//! Events of a pool user, for its driver.

use super::RequestId;
use crate::wire::{InvalidPoolHandle, OperationError, PoolElement, PoolHandle, TransportAddress};
use crate::{Identity, Incompatible};

/// An event that a pool user reports to its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Event {
    /// The answer to a request: the elements in the order in which to try them.
    Resolved {
        /// The request.
        request: RequestId,
        /// The elements, or the reason why there are none.
        result: Result<Vec<PoolElement>, ResolveError>,
        /// True if the registrar has just returned all elements of the pool. False if there may be
        /// others, or if the elements come from the cache.
        complete: bool,
    },
    /// A subscribed pool changed. Contains all its elements, or none if there is no such pool.
    PoolChanged {
        /// The pool.
        handle: PoolHandle,
        /// The elements of the pool.
        elements: Vec<PoolElement>,
    },
    /// The home registrar reported an error that belongs to no request.
    RegistrarError(OperationError),
    /// The home registrar sent a message that is not valid ASAP.
    Misbehaved(String),
    /// A connection was closed, since the access rules do not permit the other end to be a
    /// registrar.
    Denied {
        /// The address of the other end.
        peer: TransportAddress,
        /// The identity of the other end, if the transport authenticates.
        identity: Option<Identity>,
    },
    /// A home registrar was found.
    RegistrarFound(TransportAddress),
    /// The home registrar was lost, or does not answer; the user looks for another.
    RegistrarLost,
    /// No registrar was found so far; the search continues.
    NoRegistrar,
}

/// Error of resolving a pool handle. The cache keeps its answer for the pool, unless the registrar
/// knows no such pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The registrar knows no such pool.
    #[error("there is no pool {0}")]
    UnknownPool(PoolHandle),
    /// The registrar refused the resolution for a reason other than an unknown pool.
    #[error("the registrar refused the resolution: {0}")]
    Refused(OperationError),
    /// The pool handle is empty or too long: nothing was sent.
    #[error(transparent)]
    InvalidPoolHandle(#[from] InvalidPoolHandle),
    /// The compatibility profile forbids the pool handle: nothing was sent.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// No registrar answered in time.
    #[error("no registrar answered at {}", list(.0))]
    NoRegistrar(Vec<TransportAddress>),
    /// The pool user's task has stopped.
    #[error("the pool user has stopped")]
    Stopped,
}

fn list(addresses: &[TransportAddress]) -> String {
    match addresses {
        [] => "any address: none is configured".to_owned(),
        addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}
