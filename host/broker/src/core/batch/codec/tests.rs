//! Codecs: what goes in comes out, damage and bombs are errors, and the frames are those that other programs write.

use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMIT_BYTES: usize = 1 << 20;

/// Bytes that compress a little.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let byte = |number: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if number.is_multiple_of(3) { (state >> 24) as u8 } else { b'a' + (number % 7) as u8 }
    };
    (0..length).map(byte).collect()
}

#[test]
fn what_goes_in_comes_out() {
    for codec in CODECS {
        for length in [0, 1, 100, 40_000, 300_000] {
            let bytes = sample(length);
            let compressed = codec.compress(&bytes).unwrap();
            assert_eq!(codec.decompress(&compressed, LIMIT_BYTES).unwrap(), bytes, "{codec:?} {length}");
        }
    }
}

#[test]
fn bombs_are_cut_off_at_the_limit() {
    let zeros = vec![0; 4 * LIMIT_BYTES];
    for codec in &CODECS[1..] {
        let compressed = codec.compress(&zeros).unwrap();
        assert!(compressed.len() < LIMIT_BYTES, "{codec:?}: {} bytes", compressed.len());
        let error = codec.decompress(&compressed, LIMIT_BYTES).unwrap_err();
        assert_eq!(error, CodecError::TooLarge { limit_bytes: LIMIT_BYTES }, "{codec:?}");
    }
    // A snappy block that only says that it is large takes no memory.
    let error = Codec::Snappy.decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], LIMIT_BYTES).unwrap_err();
    assert_eq!(error, CodecError::TooLarge { limit_bytes: LIMIT_BYTES });
}

#[test]
fn damage_is_an_error_or_other_bytes_and_never_a_panic() {
    let bytes = sample(1_500);
    for codec in &CODECS[1..] {
        let compressed = codec.compress(&bytes).unwrap();
        for at in 0..compressed.len() {
            let mut damaged = compressed.clone();
            damaged[at] ^= 0x55;
            drop(codec.decompress(&damaged, LIMIT_BYTES));
            let cut = codec.decompress(&compressed[..at], LIMIT_BYTES);
            assert!(cut.is_err() || cut.is_ok_and(|found| bytes.starts_with(&found)), "{codec:?} cut at {at}");
        }
        assert!(codec.decompress(b"no frame of any codec", LIMIT_BYTES).is_err(), "{codec:?}");
    }
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn frames_of_other_programs_are_read() {
    let expected = [[b'a'; 100].as_slice(), b"hello"].concat();
    // As gzip, zstd (with and without a checksum) and lz4 write them on the command line.
    for (codec, frame) in [
        (Codec::Gzip, "1f8b08000000000000034b4ca43dc848cdc9c9070085ff4e2369000000"),
        (Codec::Zstd, "28b52ffd00586d000038616168656c6c6f01003f012c"),
        (Codec::Zstd, "28b52ffd04586d000038616168656c6c6f01003f012cc3f29617"),
        (Codec::Lz4, "04224d186440a70b0000001f610100505068656c6c6f000000009d2ca299"),
    ] {
        assert_eq!(codec.decompress(&bytes_of(frame), LIMIT_BYTES).unwrap(), expected, "{codec:?}");
    }
    // Snappy without a frame: a length and a literal.
    assert_eq!(Codec::Snappy.decompress(b"\x05\x10hello", LIMIT_BYTES).unwrap(), b"hello".as_slice());
}
