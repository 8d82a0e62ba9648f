//! What goes in comes out again, in every format, and what does not fit is told.

use super::*;

#[test]
fn values_come_back_as_they_were_written() {
    for (format, text) in [
        (DataFormat::Utf8, "Grüße"),
        (DataFormat::Json, "{\"a\":[1,2]}"),
        (DataFormat::I32, "-7"),
        (DataFormat::I64, "9007199254740993"),
        (DataFormat::F64, "0.5"),
        (DataFormat::Base64, "AAEC/w=="),
        (DataFormat::Hex, "00ff"),
    ] {
        let bytes = format.read(text).expect("readable");
        let shown = format.show(&bytes).expect("showable");
        assert_eq!(format.read_json(&shown).as_deref(), Ok(bytes.as_slice()), "{format:?}");
    }
}

#[test]
fn numbers_are_as_kafkas_serializers_write_them() {
    assert_eq!(DataFormat::I64.read("1").as_deref(), Ok([0, 0, 0, 0, 0, 0, 0, 1].as_slice()));
    assert_eq!(DataFormat::I32.show(&[0, 0, 1, 0]).map(|value| value.to_string()), Ok("256".to_owned()));
}

#[test]
fn bytes_that_do_not_fit_are_told() {
    let error = DataFormat::I64.show(&[1, 2]).map(|_| ()).expect_err("too short");
    assert_eq!(error, "expected 8 bytes, found 2 bytes 0102");
    assert!(DataFormat::Utf8.show(&[0xff]).is_err());
    assert!(DataFormat::Json.show(b"{").is_err());
    assert!(DataFormat::Hex.read("0").is_err());
    assert!(DataFormat::Hex.read("zz").is_err());
    assert!(DataFormat::I32.read("3000000000").is_err());
    assert!(DataFormat::Utf8.read_json(&to_raw_value(&3).expect("a number")).is_err());
}

#[test]
fn json_keeps_its_bytes() {
    let text = b"{\"z\":1.50,\"a\":9007199254740993}";
    let shown = DataFormat::Json.show(text).expect("JSON");
    assert_eq!(shown.get().as_bytes(), text);
    assert_eq!(DataFormat::Json.show(b"{\n\"a\":1}").expect("JSON").get(), "{\"a\":1}");
    let broken = DataFormat::Json.show(b"{\"z\":1.50,\r\n\"a\":9007199254740993}\n").expect("JSON");
    assert_eq!(broken.get().as_bytes(), text);
}
