//! Which addresses are asked, and which never are, however they are written.

use super::*;

fn networks(of: &[&str]) -> PeerNetworks {
    PeerNetworks::new(of.iter().map(|text| text.parse().expect("a network")).collect())
}

#[test]
fn what_is_no_network_is_refused() {
    for text in ["", "10", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "host/8", "10.0.0.0/8/8"]
    {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}

#[test]
fn an_address_is_in_its_networks_only() {
    let networks = networks(&["10.1.0.0/16", "192.168.7.9", "fd12::/32"]);
    for address in ["10.1.255.255", "192.168.7.9", "fd12:0:1::1", "::ffff:10.1.2.3"] {
        assert_eq!(networks.check(address.parse().expect("an address")), Ok(()), "{address}");
    }
    for address in ["10.2.0.0", "192.168.7.8", "fd13::1", "127.0.0.1", "::1", "::ffff:10.2.0.1"] {
        assert!(networks.check(address.parse().expect("an address")).is_err(), "{address}");
    }
    let everywhere = PeerNetworks::default();
    for address in ["10.1.2.3", "127.0.0.1", "::1", "93.184.216.34"] {
        assert_eq!(everywhere.check(address.parse().expect("an address")), Ok(()), "{address}");
    }
}

#[test]
fn some_addresses_are_never_asked() {
    for networks in [PeerNetworks::default(), networks(&["0.0.0.0/0", "::/0"])] {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(networks.check(address.parse().expect("an address")).is_err(), "{address}");
        }
    }
}

#[test]
fn an_endpoint_is_a_host_and_a_port_and_nothing_else() {
    let networks = PeerNetworks::default();
    for endpoint in ["10.1.2.3:7070", "[::1]:7070", "host-1.example:80", "localhost:1"] {
        assert_eq!(networks.check_endpoint(endpoint), Ok(()), "{endpoint}");
    }
    for endpoint in [
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[fe80::1]:80",
        "0.0.0.0:7070",
        "10.1.2.3",
        "10.1.2.3:",
        "10.1.2.3:+1",
        "10.1.2.3:70700",
        ":7070",
        "user@10.1.2.3:7070",
        "user:secret@10.1.2.3:7070",
        "10.1.2.3/path:7070",
        "10.1.2.3:7070/path",
        "http://10.1.2.3:7070",
        "10.1.2.3?:7070",
        "10.1.2.3#x:7070",
        "::1:7070",
        "[10.1.2.3]:7070",
        "a b:7070",
        "a\r\nhost:7070",
        "",
    ] {
        assert!(networks.check_endpoint(endpoint).is_err(), "{endpoint}");
    }
}
