//! The address at which other gateways reach this one.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, ensure};

/// An IP address or a host name, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl FromStr for OwnAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self { host: Host::Ip(ip), port: None });
        }
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let port = port.map(str::parse).transpose();
        // Digits and dots alone are a mistyped address, not a name.
        match port.ok().filter(|_| is_name && name.bytes().any(|byte| byte.is_ascii_alphabetic())) {
            Some(port) => Ok(Self { host: Host::Name(name.into()), port }),
            None => {
                Err("must look like 10.0.0.5, 10.0.0.5:7250, fd00::5, [fd00::5]:7250 or gateway-1.example:7250".into())
            }
        }
    }
}

impl OwnAddress {
    /// Rejects an IPv6 address that was probably meant as address and port, without the brackets.
    ///
    /// # Errors
    /// When the last group of the address reads like this port.
    pub fn check(&self, port: u16) -> anyhow::Result<()> {
        if let (Host::Ip(IpAddr::V6(ip)), None) = (&self.host, self.port) {
            let ends_with_port = format!("{:x}", ip.segments()[7]) == port.to_string();
            ensure!(
                !ends_with_port,
                "CONFAB_FORWARD_ADDRESS is {ip}, whose last group may be the port: \
                write [address]:{port}, or [{ip}]:{port} if it is not"
            );
        }
        Ok(())
    }

    /// Resolves the address; `port` is used when the setting has none.
    ///
    /// # Errors
    /// When the name cannot be resolved.
    pub async fn resolve(&self, port: u16) -> anyhow::Result<SocketAddr> {
        let port = self.port.unwrap_or(port);
        let name = match &self.host {
            Host::Ip(ip) => return Ok(SocketAddr::new(*ip, port)),
            Host::Name(name) => name,
        };
        let mut found = tokio::net::lookup_host((name.as_str(), port))
            .await
            .with_context(|| format!("CONFAB_FORWARD_ADDRESS: {name}"))?;
        found.next().with_context(|| format!("CONFAB_FORWARD_ADDRESS: {name} has no address"))
    }
}

#[cfg(test)]
mod tests;
