//! What `sandbar dlq purge` refuses: to remove anything unasked, and records that are no dead letters.

use super::*;

/// The offsets that a topic holds; `list` of dead letters shows every record.
fn held(broker: &Broker, topic: &str) -> Result<usize> {
    Ok(told(broker, &["list", topic])?.len())
}

#[test]
fn nothing_is_removed_where_nobody_was_asked() -> Result<()> {
    for broker in brokers("purge-unasked")? {
        let (_, letters) = filled(&broker)?;
        let at = format!("{letters}@0:1");
        for arguments in [
            ["--all"].as_slice(),
            &["--before", at.as_str()],
            &["--before", "0s"],
            &["--all", "--any-record"],
            &["--all", "-o", "json"],
        ] {
            let (error, code) = refused(&broker, &[&["purge", letters.as_str()], arguments].concat())?;
            assert!(error.contains("add --yes") && code == Some(2), "{arguments:?}: {code:?} {error}");
            assert_eq!(held(&broker, &letters)?, 4, "{arguments:?}");
        }
        told(&broker, &["purge", &letters, "--all", "--yes"])?;
        assert_eq!(held(&broker, &letters)?, 0);
    }
    Ok(())
}

#[test]
fn records_that_are_no_dead_letters_stay() -> Result<()> {
    for broker in brokers("purge-orders")? {
        let orders = repository::unique("orders");
        topics::create(&broker, &orders, 2)?;
        let line =
            |n: u32| json!({ "partition": n % 2, "key": n.to_string(), "value": "v", "timestamp": 5 }).to_string();
        topics::produce(&broker, &orders, Values::Text, &(0..500).map(line).collect::<Vec<_>>().join("\n"))?;
        let before = format!("{orders}@1:7");
        for arguments in [["--all", "--yes"].as_slice(), &["--all", "--dry-run"], &["--before", "0s", "--yes"]] {
            let (error, code) = refused(&broker, &[&["purge", orders.as_str()], arguments].concat())?;
            let words = format!("500 records of {orders} that this would remove are no dead letters");
            assert!(error.contains(&words), "{arguments:?}: {error}");
            assert!(error.contains(&format!("the first at {orders}@0:0")) && code == Some(2), "{code:?} {error}");
        }
        let (error, _) = refused(&broker, &["purge", "--before", &before, "--yes"])?;
        assert!(error.contains("7 records of") && error.contains(&format!("the first at {orders}@1:0")), "{error}");
        assert_eq!(topics::read(&broker, &orders, Values::Text)?.len(), 500, "nothing was removed");

        told(&broker, &["purge", "--before", &before, "--any-record", "--yes"])?;
        assert_eq!(topics::read(&broker, &orders, Values::Text)?.len(), 493, "{broker:?}");
    }
    Ok(())
}

#[test]
fn only_the_range_that_goes_is_looked_at() -> Result<()> {
    for broker in brokers("purge-mixed")? {
        let (_, letters) = filled(&broker)?;
        topics::produce(&broker, &letters, Values::Text, r#"{"partition":0,"value":"foreign","timestamp":5}"#)?;
        let foreign = format!("{letters}@0:2");
        let (error, _) = refused(&broker, &["purge", &letters, "--all", "--yes"])?;
        assert!(error.contains("1 record of") && error.contains(&format!("is no dead letter, the first at {foreign}")));
        assert_eq!(held(&broker, &letters)?, 5);
        told(&broker, &["purge", "--before", &foreign, "--yes"])?;
        assert_eq!(held(&broker, &letters)?, 3, "{broker:?}");
        told(&broker, &["purge", &letters, "--all", "--any-record", "--yes"])?;
        assert_eq!(held(&broker, &letters)?, 0);
    }
    Ok(())
}
