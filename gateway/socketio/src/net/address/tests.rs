use super::*;
use axum::http::HeaderValue;

fn of(peer: &str, lines: &[&'static str], trusted: &str) -> String {
    let headers = lines.iter().map(|line| (FORWARDED_FOR, HeaderValue::from_static(line))).collect();
    let trusted = trusted
        .split(' ')
        .filter(|text| !text.is_empty())
        .filter_map(|text| network(text).unwrap())
        .collect::<Vec<_>>();
    ClientAddress::of(peer.parse().unwrap(), &headers, &trusted).to_string()
}

#[test]
fn forwarded_for_is_read_only_from_trusted_proxies() {
    assert_eq!(of("192.0.2.1", &["198.51.100.7"], ""), "192.0.2.1");
    assert_eq!(of("192.0.2.1", &["198.51.100.7"], "10.0.0.0/8"), "192.0.2.1");
    assert_eq!(of("10.0.0.1", &["198.51.100.7"], "10.0.0.0/8"), "198.51.100.7");
    assert_eq!(of("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
    assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.7"], "10.0.0.1"), "198.51.100.7");
    for trusted in ["::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
        assert_eq!(of("10.0.0.1", &["198.51.100.7"], trusted), "198.51.100.7");
    }
}

#[test]
fn the_right_most_untrusted_hop_is_the_client() {
    assert_eq!(of("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "10.0.0.0/8"), "198.51.100.7");
    assert_eq!(of("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.9.9.9"], "10.0.0.0/8"), "198.51.100.7");
    assert_eq!(of("10.0.0.1", &["203.0.113.9", "198.51.100.7:4711", "10.9.9.9"], "10.0.0.0/8"), "198.51.100.7");
    assert_eq!(of("10.0.0.1", &["10.2.2.2, 10.3.3.3"], "10.0.0.0/8"), "10.2.2.2");
    assert_eq!(of("10.0.0.1", &["198.51.100.7, unknown, 10.9.9.9"], "10.0.0.0/8"), "10.9.9.9");
    assert_eq!(of("10.0.0.1", &[""], "10.0.0.0/8"), "10.0.0.1");
}

#[test]
fn ipv6_addresses_are_grouped_by_64_bit_network() {
    assert_eq!(of("2001:db8:1:2:3:4:5:6", &[], ""), "2001:db8:1:2::");
    assert_eq!(of("::1", &["[2001:db8:1:2:3:4:5:6]:4711"], "::1"), "2001:db8:1:2::");
    assert_eq!(of("::1", &["[2001:db8:1:2::9]"], "::1/128"), "2001:db8:1:2::");
    assert_eq!(of("::1", &["::ffff:198.51.100.7"], "::1"), "198.51.100.7");
}

#[test]
fn malformed_networks_are_rejected() {
    assert_eq!(network(" 10.0.0.0/8").unwrap().unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(network("::1").unwrap().unwrap().to_string(), "::1/128");
    assert_eq!(network(" ").unwrap(), None);
    for bad in ["10.0.0.0/33", "proxy.example", "10.0.0"] {
        assert!(network(bad).is_err(), "{bad}");
    }
}
