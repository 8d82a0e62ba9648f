//! The vectors of Kafka's own `UtilsTest.testMurmur2`.

use super::{murmur2, partition_for_key};

#[test]
fn agrees_with_kafka() {
    let cases: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];
    for (key, expected) in cases {
        assert_eq!(murmur2(key) as i32, expected, "{}", String::from_utf8_lossy(key));
    }
}

#[test]
fn a_partition_is_in_bounds() {
    for n in 0..1_000_u32 {
        assert!((0..7).contains(&partition_for_key(&n.to_be_bytes(), 7)));
    }
    assert_eq!(partition_for_key(b"abc", 4), 479_470_107 % 4);
}
