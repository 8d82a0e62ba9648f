//! A raw client and a broker in memory for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{CreateTopicsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};

use crate::core::batch::build::{NewRecord, batch_of};
use crate::core::memory::MemoryStorage;
use crate::core::{Core, CoreOptions};
use crate::wire::shape::Api;
use crate::wire::{Server, WireOptions};

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A broker in memory.
pub struct Broker {
    pub server: Server,
    pub storage: MemoryStorage,
}

impl Broker {
    pub fn start() -> Self {
        Self::with(CoreOptions::default(), WireOptions::default())
    }

    pub fn with(core: CoreOptions, wire: WireOptions) -> Self {
        let storage = MemoryStorage::new();
        let (core, _) = Core::open(core, Arc::new(storage.clone())).unwrap();
        Self { server: Server::start(Arc::new(core), wire).unwrap(), storage }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.server.address())
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0 }
    }

    pub fn write<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation_id += 1;
        let api = Api::find(R::KEY).unwrap();
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(R::KEY);
        frame.put_i16(version);
        frame.put_i32(self.correlation_id);
        frame.put_i16(4);
        frame.put_slice(b"test");
        if api.is_flexible(version) {
            frame.put_u8(0);
        }
        request.encode(&mut frame, version).unwrap();
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).unwrap();
    }

    /// The next answer's bytes after its length.
    pub fn read_frame(&mut self) -> std::io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    pub fn read<R: Request>(&mut self, version: i16) -> R::Response {
        let mut frame = self.read_frame().unwrap();
        assert_eq!(frame.split_to(4).as_ref(), self.correlation_id.to_be_bytes());
        if R::Response::header_version(version) == 1 {
            assert_eq!(frame.split_to(1).as_ref(), [0]);
        }
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes after the answer", frame.len());
        response
    }

    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.write(request, version);
        self.read::<R>(version)
    }

    /// True when the broker has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            // A time-out is no close.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let one =
            CreatableTopic::default().with_name(topic(name)).with_num_partitions(partitions).with_replication_factor(1);
        let response = self.call(&CreateTopicsRequest::default().with_topics(vec![one]), 5);
        assert_eq!(response.topics[0].error_code, 0);
    }

    pub fn produce_batch(&mut self, name: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let request = produce_request(name, partition, batch);
        let mut response = self.call(&request, 8);
        response.responses.remove(0).partition_responses.remove(0)
    }

    pub fn produce(&mut self, name: &str, value: &[u8]) -> i64 {
        let response = self.produce_batch(name, 0, batch(value));
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        response.base_offset
    }
}

pub fn batch(value: &[u8]) -> Bytes {
    batch_of(None, &[NewRecord { timestamp: 1, value: Some(value), ..NewRecord::default() }])
}

pub fn produce_request(name: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let one = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![one])
}
