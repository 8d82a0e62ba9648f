//! Where the other hosts of an application may be: the addresses that this host asks. The group says them, and whoever
//! may join the group can say anything, so an address that leads to a cloud's metadata or into no network that was
//! allowed is never connected to. Pure: resolves no name and opens no connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many of its first bits an address must share.
    prefix: u32,
}

/// Metadata services of clouds that lie outside the link-local networks.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

impl FromStr for Network {
    type Err = String;

    /// An address without a prefix is a network of its own.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("expected a network such as 10.0.0.0/8, found {text:?}");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| refuse())?,
            Some(_) => return Err(refuse()),
            None => bits,
        };
        if prefix > bits {
            return Err(refuse());
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

/// The networks of an application's hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerNetworks {
    /// Any network where there are none.
    allowed: Vec<Network>,
}

impl PeerNetworks {
    pub fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: IpAddr) -> Result<(), String> {
        // An IPv4 address is the same one when it is written as IPv6.
        let address = address.to_canonical();
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if link_local || address.is_unspecified() || address.is_multicast() || METADATA.contains(&address) {
            return Err(format!("{address} is never the address of a host"));
        }
        if self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(format!("{address} is in none of advertised.networks"))
    }

    /// Whether `host:port`, as the group says it, may be asked: a name or an address with a port, nothing else. The
    /// addresses of a name are checked when it is resolved.
    ///
    /// # Errors
    /// Why not.
    pub fn check_endpoint(&self, endpoint: &str) -> Result<(), String> {
        let refuse = || format!("{endpoint:?} is no host:port");
        let (host, port) = endpoint.rsplit_once(':').ok_or_else(refuse)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return Err(refuse());
        }
        let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => Some(address.parse::<Ipv6Addr>().map_err(|_| refuse())?.into()),
            None => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        };
        match address {
            Some(address) => self.check(address),
            None if is_name(host) => Ok(()),
            None => Err(refuse()),
        }
    }
}

fn is_name(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(legal)
}

#[cfg(test)]
mod tests;
