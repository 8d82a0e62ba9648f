//! The bytes against those of Kafka's serializers, and the words for bytes that are none.

use super::*;

fn bytes<S: Serde>(view: &S::View) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    S::encode(view, &mut bytes).expect("it can be written").then_some(bytes)
}

fn refusal<S: Serde>(bytes: Option<&[u8]>) -> String {
    match S::decode_owned(bytes) {
        Ok(_) => panic!("the bytes were taken"),
        Err(error) => error.to_string(),
    }
}

/// What `org.apache.kafka.common.serialization` writes for the same values.
#[test]
fn bytes_are_those_of_kafkas_serializers() {
    assert_eq!(bytes::<i64>(&-2), Some(vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]));
    assert_eq!(bytes::<i32>(&258), Some(vec![0, 0, 1, 2]));
    assert_eq!(bytes::<i16>(&-1), Some(vec![0xff, 0xff]));
    assert_eq!(bytes::<f64>(&1.5), Some(vec![0x3f, 0xf8, 0, 0, 0, 0, 0, 0]));
    assert_eq!(bytes::<f32>(&1.5), Some(vec![0x3f, 0xc0, 0, 0]));
    assert_eq!(bytes::<bool>(&true), Some(vec![1]));
    assert_eq!(bytes::<String>("Åse"), Some(vec![0xc3, 0x85, b's', b'e']));
    assert_eq!(bytes::<Raw>(&[0, 255]), Some(vec![0, 255]));
    assert_eq!(bytes::<()>(&()), None);
    assert_eq!(bytes::<Json<Vec<u8>>>(&vec![1, 2]), Some(b"[1,2]".to_vec()));
}

#[test]
fn what_was_written_reads_the_same() {
    for number in [i64::MIN, -1, 0, 1, i64::MAX] {
        assert_eq!(i64::decode(bytes::<i64>(&number).as_deref()).expect("a number"), number);
    }
    assert_eq!(Str::decode(Some("é".as_bytes())).expect("text"), "é");
    assert_eq!(<Option<String>>::decode_owned(None).expect("null is allowed"), None);
    assert_eq!(<Option<String>>::decode_owned(Some(b"")).expect("empty is not null"), Some(String::new()));
    assert_eq!(bytes::<Option<i64>>(&None), None);
    assert_eq!(bytes::<Option<String>>(&Some("a".into())), Some(b"a".to_vec()));
}

#[test]
fn a_refusal_says_what_was_expected_and_found() {
    assert_eq!(refusal::<String>(None), "is null where UTF-8 text was expected");
    assert_eq!(refusal::<i64>(Some(b"12")), "is not a big-endian 64-bit integer: 8 bytes expected, 2 found (`12`)");
    assert!(refusal::<Str>(Some(&[0xff])).starts_with("is not UTF-8 text"), "{}", refusal::<Str>(Some(&[0xff])));
    assert_eq!(refusal::<()>(Some(b"x")), "has 1 bytes where null was expected");
    assert_eq!(refusal::<bool>(Some(&[2])), "is not a boolean byte (0 or 1): 1 bytes found");
    let json = refusal::<Json<u8>>(Some(b"\"seven\""));
    assert!(
        json.starts_with("is not the expected JSON: invalid type") && json.ends_with("found `\"seven\"`"),
        "{json}"
    );
    let long = refusal::<Json<u8>>(Some(&[b'x'; 100]));
    assert!(long.ends_with("… (100 bytes)"), "{long}");
}

#[test]
fn formats_are_those_of_the_contract() {
    let formats = [i64::FORMAT, i32::FORMAT, f64::FORMAT, String::FORMAT, Raw::FORMAT, Json::<u8>::FORMAT];
    assert_eq!(formats, ["i64", "i32", "f64", "utf8", "bytes", "json"]);
    assert_eq!(<Option<Str>>::FORMAT, "utf8");
}
