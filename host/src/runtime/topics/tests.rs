//! What is remembered of the topics comes back as it was, or is refused.

use super::*;

fn known() -> KnownTopics {
    let topic = |id: Option<&str>, partitions| KnownTopic { id: id.map(str::to_owned), partitions };
    KnownTopics([("in".to_owned(), topic(Some("a-b_c"), 3)), ("old".to_owned(), topic(None, 1))].into())
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(parse(&render(&known())), Some(known()));
    let folder = std::env::temp_dir().join(format!("sandbar-topics-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    assert_eq!(read_known(&folder).expect("no file is nothing known"), KnownTopics::default());
    write_known(&folder, &known()).expect("written");
    assert_eq!(read_known(&folder).expect("read"), known());
    fs::write(folder.join(TOPICS), "{").expect("written");
    let error = read_known(&folder).expect_err("half a file");
    assert!(error.to_string().contains(".topics is damaged"), "{error}");
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn damage_is_no_topic_less() {
    let whole = render(&known());
    for damaged in ["", "[]", "{\"topics\": 3}", &whole.replace('3', "\"three\""), &whole.replace("\"a-b_c\"", "5")] {
        assert_eq!(parse(damaged), None, "{damaged}");
    }
}
