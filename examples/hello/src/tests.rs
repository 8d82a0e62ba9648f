//! The processor by itself, without wasm.

use sandbar::testing::{TestDriver, TestRecord};

use super::*;

#[test]
fn greets_the_world() -> Result<()> {
    let mut driver = TestDriver::<Hello>::new()?;
    driver.pipe(&None, "Hello", 1_000)?;

    let answers = driver.read(|p| &p.answers);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].value, "Hello, World!");
    assert_eq!(answers[0].timestamp, 1_000);
    Ok(())
}

#[test]
fn keeps_the_key() -> Result<()> {
    let mut driver = TestDriver::<Hello>::new()?;
    driver.pipe(&Some(b"k".to_vec()), "Hello", 1_000)?;
    assert_eq!(driver.read(|p| &p.answers)[0].key, Some(b"k".to_vec()));
    Ok(())
}

#[test]
fn refuses_what_is_not_text() -> Result<()> {
    let mut driver = TestDriver::<Hello>::new()?;
    let record = TestRecord { value: Some(vec![0xff]), timestamp: 1, ..TestRecord::default() };
    let refused = driver.pipe_all(vec![record])?;
    assert!(refused[0].reason.starts_with("deserialization: the value is not UTF-8 text"), "{}", refused[0].reason);
    assert!(driver.read(|p| &p.answers).is_empty());
    Ok(())
}
