//! What of a member's subscription counts when it comes back.

use super::topics_of;

fn subscription(topics: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 3];
    bytes.extend(i32::try_from(topics.len()).expect("few").to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).expect("short").to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    [&bytes, rest].concat()
}

#[test]
fn the_topics_count_and_what_follows_them_does_not() {
    let (one, other) = (subscription(&["in", "more"], b"owned, rack"), subscription(&["in", "more"], b"other"));
    assert_eq!(topics_of(&one), topics_of(&other));
    for topics in [&["in"][..], &["in", "some"], &["more", "in"], &[]] {
        assert_ne!(topics_of(&one), topics_of(&subscription(topics, b"owned, rack")), "{topics:?}");
    }
}

#[test]
fn another_form_counts_as_a_whole() {
    let with_count = |count: i32| [&[0, 3][..], &count.to_be_bytes(), b"\0\x02in"].concat();
    let negative_length = [&[0, 3][..], &1_i32.to_be_bytes(), &(-1_i16).to_be_bytes()].concat();
    let whole = subscription(&["in", "more"], b"");
    let cut_off = (0..whole.len()).map(|length| whole[..length].to_vec());
    for bytes in [with_count(i32::MAX), negative_length, b"topic".to_vec()].into_iter().chain(cut_off) {
        assert_eq!(topics_of(&bytes), bytes, "{bytes:?}");
    }
    assert_eq!(topics_of(&with_count(-1)), (-1_i32).to_be_bytes(), "none are named");
}
