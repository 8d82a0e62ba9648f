//! Asks a broker who it is.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::{Decodable, Encodable};

const VERSION: i16 = 4;
/// An answer about no topic is far smaller.
const ANSWER_BYTES_MAX: u32 = 64 * 1024;

/// The cluster id that the broker at the other end says; `None` when it does not speak the protocol.
pub fn ask_cluster_id(mut stream: TcpStream) -> Option<String> {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(ApiKey::Metadata as i16);
    frame.put_i16(VERSION);
    frame.put_i32(1);
    frame.put_i16(-1);
    MetadataRequest::default().with_topics(Some(Vec::new())).encode(&mut frame, VERSION).ok()?;
    let length = i32::try_from(frame.len() - 4).ok()?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = u32::from_be_bytes(length);
    if !(4..=ANSWER_BYTES_MAX).contains(&length) {
        return None;
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).ok()?;
    let mut body = bytes::Bytes::from(answer).slice(4..);
    let response = MetadataResponse::decode(&mut body, VERSION).ok()?;
    response.cluster_id.map(|id| id.as_str().to_owned())
}
