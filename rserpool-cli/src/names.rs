//! Addresses of other programs that are given as names. All addresses of a name are used. Names are
//! resolved again, so a name may appear, and its addresses may change, while a program runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use rserpool::{TransportAddress, TransportProtocol};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Interval at which names are resolved as long as one of them has no address.
const RETRY: Duration = Duration::from_secs(1);

/// Interval at which names are resolved otherwise. The system's resolver has a cache.
const REFRESH: Duration = Duration::from_secs(5);

/// Maximum time of a resolution.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of an option: a name or an IP address. Without a port, it is that of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

/// Parses `IP`, `IP:PORT`, `NAME` or `NAME:PORT`.
pub(crate) fn remote(text: &str) -> Result<Remote, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Ok(Remote { host: Host::Address(address), port: None });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let port = Some(address.port());
        return Ok(Remote { host: Host::Address(address.ip()), port });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0))),
        None => (text, None),
    };
    let is_of_name = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    let has_letter = name.contains(|it: char| it.is_ascii_alphabetic());
    match port {
        Some(None) => {}
        port if has_letter && name.len() <= 253 && name.chars().all(is_of_name) => {
            return Ok(Remote { host: Host::Name(name.to_owned()), port: port.flatten() });
        }
        _ => {}
    }
    Err("not an address: write IP:PORT or NAME:PORT, as in 127.0.0.1:3863".to_owned())
}

/// The addresses of other programs, some of which are known by their names.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    entries: Vec<Entry>,
    protocol: TransportProtocol,
}

#[derive(Debug, Clone)]
struct Entry {
    host: Host,
    port: u16,
    /// The addresses that the name had last.
    known: Vec<SocketAddr>,
    /// True if the user was told that the name has no address.
    missed: bool,
}

impl Names {
    /// Resolves the names of `remotes`. `port` is that of those without one. Prints a line for each
    /// name that has no address yet.
    pub(crate) async fn resolve<'r>(
        remotes: impl IntoIterator<Item = &'r Remote>,
        port: u16,
        protocol: TransportProtocol,
    ) -> Self {
        let entry = |remote: &Remote| {
            let port = remote.port.unwrap_or(port);
            let known = match remote.host {
                Host::Address(address) => vec![SocketAddr::new(address, port)],
                Host::Name(_) => Vec::new(),
            };
            Entry { host: remote.host.clone(), port, known, missed: false }
        };
        let mut names = Self { entries: remotes.into_iter().map(entry).collect(), protocol };
        names.update().await;
        names
    }

    /// Returns the addresses that are known now.
    pub(crate) fn addresses(&self) -> Vec<TransportAddress> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in self.entries.iter().flat_map(|entry| &entry.known) {
            if !found.contains(address) {
                found.push(*address);
            }
        }
        found.into_iter().map(|address| TransportAddress::new(self.protocol, address)).collect()
    }

    /// Takes the addresses of names that could not be resolved from `other`, which knew them.
    pub(crate) fn complete_from(&mut self, other: &Self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.known.is_empty()) {
            let same = |it: &&Entry| it.host == entry.host && it.port == entry.port;
            if let Some(old) = other.entries.iter().find(same) {
                entry.known.clone_from(&old.known);
            }
        }
    }

    /// Follows the names in a task on the current runtime, as long as there is a receiver.
    pub(crate) fn follow(mut self) -> watch::Receiver<Self> {
        let (sender, receiver) = watch::channel(self.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = self.changed() => {}
                    () = sender.closed() => break,
                }
                sender.send_replace(self.clone());
            }
        });
        receiver
    }

    /// Waits until the addresses have changed. Never ready without names. If the future is dropped,
    /// the time until the next resolution begins again.
    pub(crate) async fn changed(&mut self) -> Vec<TransportAddress> {
        if self.entries.iter().all(|entry| matches!(entry.host, Host::Address(_))) {
            return std::future::pending().await;
        }
        loop {
            let complete = self.entries.iter().all(|entry| !entry.known.is_empty());
            sleep(if complete { REFRESH } else { RETRY }).await;
            if self.update().await {
                return self.addresses();
            }
        }
    }

    /// Resolves the names, and returns whether addresses changed. A name that is not resolved any
    /// more keeps its addresses.
    async fn update(&mut self) -> bool {
        let found = join_all(self.entries.iter().map(Entry::look_up)).await;
        let mut changed = false;
        for (entry, found) in self.entries.iter_mut().zip(found) {
            changed |= entry.take(found);
        }
        changed
    }
}

impl Entry {
    async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let Host::Name(name) = &self.host else { return Ok(self.known.clone()) };
        let found = timeout(PATIENCE, lookup_host((name.as_str(), self.port))).await;
        let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        match found.is_empty() {
            true => Err(io::Error::other("it has no address")),
            false => Ok(found),
        }
    }

    fn take(&mut self, found: io::Result<Vec<SocketAddr>>) -> bool {
        let Host::Name(name) = &self.host else { return false };
        match found {
            Ok(found) if found == self.known => false,
            Ok(found) => {
                if std::mem::take(&mut self.missed) {
                    notify!("{name} has an address now");
                }
                tracing::info!(%name, addresses = ?found, "resolved");
                self.known = found;
                true
            }
            Err(error) => {
                if self.known.is_empty() && !std::mem::replace(&mut self.missed, true) {
                    notify!("cannot resolve {name} yet: {error}; waiting for it");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], port))
    }

    #[test]
    fn names_and_addresses_have_a_port_or_not() {
        let name = |name: &str| Host::Name(name.to_owned());
        for (text, host, port) in [
            ("192.0.2.1", Host::Address([192, 0, 2, 1].into()), None),
            ("192.0.2.1:7", Host::Address([192, 0, 2, 1].into()), Some(7)),
            ("[::1]:7", Host::Address("::1".parse().unwrap()), Some(7)),
            ("::1", Host::Address("::1".parse().unwrap()), None),
            ("[::1]", Host::Address("::1".parse().unwrap()), None),
            ("localhost", name("localhost"), None),
            ("registrar-0.registrars:3863", name("registrar-0.registrars"), Some(3863)),
        ] {
            assert_eq!(remote(text), Ok(Remote { host, port }), "{text}");
        }
        for text in ["", ":1", "a:", "a:b", "a:0", "a:65536", "a b", "192.0.2", "1.2.3.4.5", "?"] {
            assert!(remote(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_follow_their_names_and_outlive_a_failure() {
        let host = Host::Name("pool.test".to_owned());
        let mut entry = Entry { host, port: 7, known: Vec::new(), missed: false };
        assert!(!entry.take(Err(io::ErrorKind::NotFound.into())));
        assert!(entry.missed);
        assert!(entry.take(Ok(vec![at(7, 1), at(7, 2)])));
        assert!(!entry.missed);
        assert!(!entry.take(Ok(vec![at(7, 1), at(7, 2)])));
        assert!(!entry.take(Err(io::ErrorKind::NotFound.into())));
        assert_eq!(entry.known, [at(7, 1), at(7, 2)]);
        assert!(entry.take(Ok(vec![at(7, 3)])));
        assert_eq!(entry.known, [at(7, 3)]);
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_are_used_once() {
        let remotes = ["localhost", "localhost:3863", "127.0.0.1"].map(|it| remote(it).unwrap());
        let names = Names::resolve(&remotes, 3863, TransportProtocol::Tcp).await;
        let own = SocketAddr::from(([127, 0, 0, 1], 3863));
        let own = TransportAddress::tcp(own);
        assert_eq!(names.addresses().iter().filter(|address| **address == own).count(), 1);
    }
}
