//! The parts of the cache that need no compiled code; the rest is in the integration tests.

use super::*;

fn cache(key: [u8; KEY_BYTES]) -> Cache {
    Cache { folder: PathBuf::from("/a"), key, engine: "e".to_owned() }
}

#[test]
fn the_mac_is_hmac_sha_256() {
    // RFC 4231, test case 1, with its 20-byte key padded by zeros (which HMAC does too); the name is not in it.
    let mut key = [0; KEY_BYTES];
    key[..20].fill(0x0b);
    let mac = cache(key).mac("Hi There", b"");
    // HMAC-SHA256(key, "/a\0Hi There\0"), computed with `openssl dgst -sha256 -mac HMAC`.
    assert_eq!(hex(&mac), "f3025e597d8d191b36e7b4b6b47213e9eda73eb6b30de65da8daa804cf7c3fcc");
}

#[test]
fn a_file_passes_only_under_its_own_place_name_key_and_bytes() {
    let ours = cache([7; KEY_BYTES]);
    let mut file = ours.mac("a.cwasm", b"code").to_vec();
    file.extend_from_slice(b"code");
    assert_eq!(ours.verified("a.cwasm", &file), Some(&b"code"[..]));
    assert_eq!(ours.verified("b.cwasm", &file), None);
    assert_eq!(cache([8; KEY_BYTES]).verified("a.cwasm", &file), None);
    let elsewhere = Cache { folder: PathBuf::from("/b"), ..cache([7; KEY_BYTES]) };
    assert_eq!(elsewhere.verified("a.cwasm", &file), None);
    for index in 0..file.len() {
        let mut flipped = file.clone();
        flipped[index] ^= 1;
        assert_eq!(ours.verified("a.cwasm", &flipped), None, "byte {index}");
    }
    assert_eq!(ours.verified("a.cwasm", &file[..MAC_BYTES - 1]), None);
}
