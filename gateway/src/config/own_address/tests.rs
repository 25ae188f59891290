use super::*;

async fn resolved(text: &str) -> String {
    let address = text.parse::<OwnAddress>().unwrap_or_else(|error| panic!("{text}: {error}"));
    address.check(7250).unwrap();
    address.resolve(7250).await.unwrap().to_string()
}

#[tokio::test]
async fn a_missing_port_defaults_to_the_listening_port() {
    for (text, address) in [
        ("10.0.0.5", "10.0.0.5:7250"),
        ("10.0.0.5:1", "10.0.0.5:1"),
        ("fd00::12", "[fd00::12]:7250"),
        ("[fd00::12]", "[fd00::12]:7250"),
        ("[fd00::12]:1", "[fd00::12]:1"),
        ("[fd00::12]:7250", "[fd00::12]:7250"),
    ] {
        assert_eq!(resolved(text).await, address);
    }
    for (name, port) in [("localhost", "7250"), ("localhost:1", "1")] {
        let address = resolved(name).await.parse::<SocketAddr>().unwrap();
        assert!(address.ip().is_loopback() && address.port().to_string() == port, "{name}: {address}");
    }
}

#[test]
fn malformed_addresses_are_rejected_with_examples() {
    for bad in [
        "",
        ":7250",
        "7250",
        "10.0.0",
        "10.0.0.5:x",
        "10.0.0.5:70000",
        "fd00::12::1",
        "[fd00::12",
        "http://a:1",
        "a b:1",
    ] {
        assert!(bad.parse::<OwnAddress>().unwrap_err().contains("[fd00::5]:7250"), "{bad}");
    }
    let pasted = "fd00::12:7250".parse::<OwnAddress>().unwrap();
    assert!(pasted.check(7250).unwrap_err().to_string().contains("whose last group may be the port"));
    assert!(pasted.check(7251).is_ok());
}
