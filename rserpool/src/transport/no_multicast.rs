//! Stands in for multicast in builds without the feature `multicast`.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::task::{Context, Poll};

use rserpool_proto::wire::{Ppid, TransportAddress, UserMessage};

use crate::runtime::Runtime;

/// A multicast socket that can never be opened, since the feature `multicast` is off.
#[derive(Debug)]
#[allow(dead_code, reason = "there is no value of this type")]
pub(crate) struct Multicast(());

impl Multicast {
    pub(crate) fn open(
        _: &Arc<dyn Runtime>,
        _: Ppid,
        _: Vec<SocketAddrV4>,
        _: Option<&TransportAddress>,
    ) -> io::Result<Self> {
        let error = "rserpool was built without the feature `multicast`";
        Err(io::Error::new(io::ErrorKind::Unsupported, error))
    }

    pub(crate) fn protocol(&self) -> Ppid {
        Ppid::NONE
    }

    pub(crate) fn send(&self, _: &[u8]) {}

    pub(crate) fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<(SocketAddr, UserMessage)>> {
        Poll::Pending
    }
}
