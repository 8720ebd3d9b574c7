//! The forms in which programs name addresses and pools.

use std::net::SocketAddr;

use rserpool_proto::wire::{
    InvalidPoolHandle, InvalidText, PoolHandle, TransportAddress, TransportProtocol,
};

/// A value that names a transport address: a [`TransportAddress`], a [`SocketAddr`], or a string
/// such as `"192.0.2.1:3863"`, `"sctp:192.0.2.1:3863"` or `"sctp:[192.0.2.1,2001:db8::1]:3863"`.
///
/// A socket address, or a string that names no protocol, gets the network's transport protocol.
///
/// ```
/// use rserpool::{IntoAddress, TransportProtocol};
///
/// let address = "[::1]:3863".into_address(TransportProtocol::Sctp)?;
/// assert_eq!(address.to_string(), "sctp:[::1]:3863");
/// # Ok::<(), rserpool::InvalidText>(())
/// ```
pub trait IntoAddress {
    /// Converts the value to an address, with the transport `protocol` unless the value names
    /// another one.
    ///
    /// # Errors
    ///
    /// Returns an error if the value is a string that is not an address.
    fn into_address(self, protocol: TransportProtocol) -> Result<TransportAddress, InvalidText>;
}

impl IntoAddress for TransportAddress {
    fn into_address(self, _: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        Ok(self)
    }
}

impl IntoAddress for &TransportAddress {
    fn into_address(self, _: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        Ok(self.clone())
    }
}

impl IntoAddress for SocketAddr {
    fn into_address(self, protocol: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        Ok(TransportAddress::new(protocol, self))
    }
}

impl IntoAddress for &str {
    fn into_address(self, protocol: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        match self.parse::<SocketAddr>() {
            Ok(address) => address.into_address(protocol),
            Err(_) => self.parse(),
        }
    }
}

impl IntoAddress for String {
    fn into_address(self, protocol: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        self.as_str().into_address(protocol)
    }
}

impl IntoAddress for &String {
    fn into_address(self, protocol: TransportProtocol) -> Result<TransportAddress, InvalidText> {
        self.as_str().into_address(protocol)
    }
}

/// A value that names a pool: a [`PoolHandle`], a reference to one, a string, or bytes.
///
/// Implemented for all types that convert into a [`PoolHandle`].
pub trait IntoPoolHandle: TryInto<PoolHandle, Error: Into<InvalidPoolHandle>> {}

impl<T: TryInto<PoolHandle, Error: Into<InvalidPoolHandle>>> IntoPoolHandle for T {}

/// Converts the addresses of registrars.
pub(crate) fn all(
    addresses: impl IntoIterator<Item: IntoAddress>,
    protocol: TransportProtocol,
) -> Result<Vec<TransportAddress>, InvalidText> {
    addresses.into_iter().map(|address| address.into_address(protocol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_protocol_are_of_the_networks() {
        for (text, address) in [
            ("192.0.2.1:3863", "tcp:192.0.2.1:3863"),
            ("[2001:db8::1]:3863", "tcp:[2001:db8::1]:3863"),
            ("sctp:192.0.2.1:3863", "sctp:192.0.2.1:3863"),
            ("sctp:[192.0.2.1,2001:db8::1]:3863", "sctp:[192.0.2.1,2001:db8::1]:3863"),
        ] {
            let converted = text.into_address(TransportProtocol::Tcp);
            assert_eq!(converted.map(|it| it.to_string()).as_deref(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_that_quotes_it() {
        for text in ["", "3863", "192.0.2.1", "localhost:3863", "http://192.0.2.1:3863"] {
            let error = text.into_address(TransportProtocol::Tcp).unwrap_err();
            assert!(error.to_string().contains('"'), "{error}");
        }
    }
}
