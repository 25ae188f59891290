//! The client of a request, as the list of a user's sessions shows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use confab_common::{Error, Result};
use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};

/// Maximum stored length of a `User-Agent`, in bytes.
const MAX_AGENT: usize = 256;
/// Length of the stored network of an address, in bits.
const NETWORK_V4: u32 = 24;
const NETWORK_V6: u32 = 48;

/// The client of a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// All clients without an address share the unspecified one.
    pub address: IpAddr,
    /// Printable, at most 256 bytes; empty: unknown.
    pub user_agent: String,
}

impl Client {
    /// Parses the address, and cleans the `User-Agent`.
    ///
    /// # Errors
    /// `invalid_request` for a malformed address.
    pub fn parse(address: &str, user_agent: &str) -> Result<Self> {
        let address = match address {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            text => text.parse().map_err(|_| Error::field("clientAddress", "must be an IP address"))?,
        };
        Ok(Self { address, user_agent: printable(user_agent) })
    }

    /// Returns the network of the address: enough to recognise a place, too little to identify a person.
    pub fn network(&self) -> String {
        match self.address.to_canonical() {
            address if address.is_unspecified() => String::new(),
            IpAddr::V4(address) => {
                let network = u32::from(address) & (u32::MAX << (32 - NETWORK_V4));
                format!("{}/{NETWORK_V4}", Ipv4Addr::from(network))
            }
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << (128 - NETWORK_V6));
                format!("{}/{NETWORK_V6}", Ipv6Addr::from(network))
            }
        }
    }
}

/// Removes control, format and unassigned characters, and cuts the text to 256 bytes.
fn printable(text: &str) -> String {
    let category = CodePointMapData::<GeneralCategory>::new();
    let is_printable = |c: &char| {
        let category = category.get(*c);
        let is_separator = matches!(category, GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator);
        !is_separator && !GeneralCategoryGroup::Other.contains(category)
    };
    let mut kept = String::new();
    for c in text.chars().filter(is_printable) {
        if kept.len() + c.len_utf8() > MAX_AGENT {
            break;
        }
        kept.push(c);
    }
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_to_networks() {
        for (address, network) in [
            ("", ""),
            ("0.0.0.0", ""),
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ] {
            assert_eq!(Client::parse(address, "").unwrap().network(), network, "{address}");
        }
        assert!(Client::parse("localhost", "").is_err());
    }

    #[test]
    fn user_agents_are_printable_and_short() {
        let agent = |text: &str| Client::parse("", text).unwrap().user_agent;
        assert_eq!(agent(" Zoë's\tphone\u{202E}\u{0}\u{2028}\u{E000} 1.0 "), "Zoë'sphone 1.0");
        assert_eq!(agent(&"é".repeat(200)), "é".repeat(128));
        assert_eq!(agent(&format!("x{}", "é".repeat(200))).len(), 255);
    }
}
