//! Ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A range of addresses, such as `10.0.0.0/8` or `2001:db8::/32`. A single address is a range, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange(IpNet);

/// Error of parsing an [`AddressRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot parse {0:?} as a range of addresses, such as 10.0.0.0/8 or 2001:db8::1")]
pub struct InvalidAddressRange(String);

impl AddressRange {
    /// Returns whether the range contains an address. An IPv4 address in IPv6 form is the IPv4
    /// address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for AddressRange {
    type Err = InvalidAddressRange;

    fn from_str(text: &str) -> Result<Self, InvalidAddressRange> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) => text.parse().map(Self).map_err(|_| InvalidAddressRange(text.to_owned())),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_and_printed() {
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(range("10.0.0.0/8").contains(address("10.255.0.1")));
        assert!(!range("10.0.0.0/8").contains(address("11.0.0.1")));
        assert!(range("10.0.0.0/8").contains(address("::ffff:10.0.0.1")));
        assert!(range("::ffff:10.0.0.1").contains(address("10.0.0.1")));
        assert!(range("2001:db8::/32").contains(address("2001:db8::7")));
        assert!(range("192.0.2.1").contains(address("192.0.2.1")));
        assert!(!range("192.0.2.1").contains(address("192.0.2.2")));
        assert_eq!(range("192.0.2.1").to_string(), "192.0.2.1/32");
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/8 "] {
            let error = wrong.parse::<AddressRange>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
