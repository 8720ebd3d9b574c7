//! The paths of an association: its addresses, and their changes during its lifetime (RFC 5061).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rserpool_proto::wire::TransportAddress;

use super::connection::SctpConnection;
use super::{address, options};
use crate::transport::Paths;

impl Paths for SctpConnection {
    fn local(&self) -> io::Result<TransportAddress> {
        let (socket, association) = self.socket()?;
        let mut local = options::local_addresses(socket, association)?;
        keep_reachable(&mut local, &Paths::peer(self)?);
        Ok(local)
    }

    fn peer(&self) -> io::Result<TransportAddress> {
        let (socket, association) = self.socket()?;
        options::peer_addresses(socket, association)
    }

    fn primary(&self) -> io::Result<IpAddr> {
        let (socket, association) = self.socket()?;
        options::primary(socket, association)
    }

    fn round_trip_time(&self) -> io::Result<Duration> {
        let (socket, association) = self.socket()?;
        options::round_trip_time(socket, association)
    }

    fn set_primary(&mut self, address: IpAddr) -> io::Result<()> {
        let port = Paths::peer(self)?.port;
        let (socket, association) = self.socket()?;
        options::set_primary(socket, association, &address::pack(&[address], port))
    }

    fn add_local(&mut self, address: IpAddr) -> io::Result<()> {
        let port = Paths::local(self)?.port;
        let (socket, _) = self.socket()?;
        options::bind_more(socket, &address::pack(&[address], port))
    }

    fn remove_local(&mut self, address: IpAddr) -> io::Result<()> {
        let port = Paths::local(self)?.port;
        let (socket, _) = self.socket()?;
        options::unbind(socket, &address::pack(&[address], port))
    }
}

/// Removes from `local` the addresses that the peer cannot reach.
fn keep_reachable(local: &mut TransportAddress, peer: &TransportAddress) {
    if peer.addresses.iter().any(IpAddr::is_loopback) {
        return;
    }
    let special = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    };
    if !local.addresses.iter().all(special) {
        local.addresses.retain(|address| !special(address));
    }
}
