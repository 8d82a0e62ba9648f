//! A raw client over the public protocol crate, and folders for tests.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, GroupId, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};

/// A folder of this test's own, removed at its end.
pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("broker-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("g"))
}

/// One connection; uses only versions without compact lengths. Its topic is `t`, its group `g`.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream })
    }

    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(R::KEY);
        frame.put_i16(version);
        frame.put_i32(0);
        frame.put_i16(-1);
        request.encode(&mut frame, version).unwrap();
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        Ok(R::Response::decode(&mut Bytes::from(answer).slice(4..), version).unwrap())
    }

    /// The address that the broker says it has.
    pub fn advertised(&mut self) -> (String, i32) {
        let answer = self.call(&MetadataRequest::default().with_topics(Some(Vec::new())), 4).unwrap();
        (answer.brokers[0].host.to_string(), answer.brokers[0].port)
    }

    pub fn create_topic(&mut self) -> i16 {
        let one = CreatableTopic::default().with_name(topic()).with_num_partitions(1).with_replication_factor(1);
        self.call(&CreateTopicsRequest::default().with_topics(vec![one]), 4).unwrap().topics[0].error_code
    }

    /// Appends one record of an idempotent producer: error code and offset.
    pub fn produce(&mut self, producer: i64, sequence: i32, value: &[u8]) -> io::Result<(i16, i64)> {
        let stamp = ProducerStamp { producer_id: producer, epoch: 0, base_sequence: sequence, transactional: false };
        let batch = batch_of(Some(stamp), &[NewRecord { value: Some(value), ..NewRecord::default() }]);
        let data = PartitionProduceData::default().with_records(Some(batch));
        let one = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_transactional_id(None).with_acks(-1).with_topic_data(vec![one]);
        let answer = self.call(&request, 7)?;
        let partition = &answer.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    /// The bytes of whole batches from `offset` on.
    pub fn fetch(&mut self, offset: i64) -> Bytes {
        let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
        let one = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![one]);
        let answer = self.call(&request, 11).unwrap();
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        partition.records.clone().unwrap_or_default()
    }

    pub fn commit(&mut self, offset: i64) -> io::Result<i16> {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let one = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![one]);
        Ok(self.call(&request, 6)?.topics[0].partitions[0].error_code)
    }

    pub fn committed(&mut self) -> i64 {
        let one = OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![one]));
        self.call(&request, 5).unwrap().topics[0].partitions[0].committed_offset
    }
}
