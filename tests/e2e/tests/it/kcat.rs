//! kcat, a client in C over another version of librdkafka than ours, on `sandbar broker`.

use anyhow::Result;
use e2e::embedded::EmbeddedBroker;
use e2e::repository;
use e2e::tools::{has_kcat, kcat};
use e2e::topics::{self, Values};
use serde_json::Value;

#[test]
fn kcat_produces_consumes_and_asks() -> Result<()> {
    if !has_kcat() {
        return Ok(());
    }
    let folder = repository::scratch(&repository::unique("kcat"))?.join("broker");
    let broker = EmbeddedBroker::start(&folder, &["--auto-create-topics"])?;
    let address = broker.address.as_str();
    topics::create(&broker.by_folder(), "letters", 2)?;

    let metadata: Value = serde_json::from_str(&kcat(&["-b", address, "-L", "-J"], "")?.stdout)?;
    assert_eq!(metadata["brokers"][0]["name"], address);
    assert_eq!(metadata["topics"][0]["topic"], "letters");
    assert_eq!(metadata["topics"][0]["partitions"].as_array().map(Vec::len), Some(2));

    // Keys, a tombstone, a header.
    let produce = ["-b", address, "-P", "-t", "letters", "-p", "1", "-K:", "-Z", "-H", "trace=7"];
    kcat(&produce, "a:Hello\nb:Tschüss\nc:\n")?;
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        kcat(&["-b", address, "-P", "-t", "letters", "-p", "0", "-z", codec], &format!("{codec} text\n"))?;
    }
    let consume =
        |partition, format| kcat(&["-b", address, "-C", "-t", "letters", "-p", partition, "-e", "-f", format], "");
    let read = consume("1", "%o %k=%s(%S) %h\\n")?;
    assert_eq!(read.rows(), ["0 a=Hello(5) trace=7", "1 b=Tschüss(8) trace=7", "2 c=(-1) trace=7"]);
    assert_eq!(consume("0", "%s\\n")?.rows(), ["gzip text", "snappy text", "lz4 text", "zstd text"]);

    // What kcat wrote, `sandbar topics` reads.
    let records = topics::read(&broker.by_folder(), "letters", Values::Text)?;
    assert_eq!(records.len(), 7);

    // Offsets by time: the time of the first and the last record, and one after them.
    let times: Vec<i64> =
        records.iter().filter(|record| record.partition == 1).map(|record| record.timestamp).collect();
    let offset_at = |time: i64| -> Result<Vec<String>> {
        Ok(kcat(&["-b", address, "-Q", "-t", &format!("letters:1:{time}")], "")?.rows())
    };
    let first_of = |time| times.iter().position(|other| *other >= time).map_or(-1, |at| at as i64);
    for time in [times[0], times[0] - 1_000, times[2], times[2] + 1_000] {
        assert_eq!(offset_at(time)?, [format!("letters [1] offset {}", first_of(time))], "{time} of {times:?}");
    }
    assert_eq!(offset_at(-1)?, ["letters [1] offset 3"]);

    // A group reads both partitions once, and a second member of it finds nothing left.
    let member =
        ["-b", address, "-f", "%o %s\\n", "-X", "auto.offset.reset=earliest", "-e", "-G", "readers", "letters"];
    assert_eq!(kcat(&member, "")?.rows().len(), 7);
    assert_eq!(kcat(&member, "")?.rows().len(), 0);

    // A topic that nobody created, since the broker was told so.
    kcat(&["-b", address, "-P", "-t", "made"], "first\n")?;
    assert_eq!(topics::read(&broker.by_folder(), "made", Values::Text)?[0].value, "first");
    Ok(())
}
