//! A client for many requests to one address: HTTP/1.1 over a connection that is kept, one request at a time, no
//! redirects. It costs little enough to put a host under load from the same machine. Never sends a request twice: what
//! a broken connection means is for the caller to judge.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// More lines than any answer's head has.
const HEAD_LINES_MAX: usize = 100;
const BUFFER_BYTES: usize = 64 * 1024;

/// The first lines of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Names in small letters.
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn read(source: &mut impl BufRead) -> Result<Self> {
        let first = line(source)?;
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let mut head = Self { status: status.ok_or_else(|| broken("no status"))?, headers: Vec::new() };
        for _ in 0..HEAD_LINES_MAX {
            let line = line(source)?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
            head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Err(broken("too many headers"))
    }
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

/// See the module's head. It connects when there is something to send.
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// `timeout` is for connecting, and for each part of an answer that is waited for.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, connection: None }
    }

    /// Sends a request that `request` has made, and gives the body to `take` part by part.
    ///
    /// # Errors
    /// When nobody answers in time, or the answer is cut off. The next request has a new connection then.
    pub fn stream(&mut self, request: &[u8], mut take: impl FnMut(&[u8])) -> Result<Head> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.get_mut().write_all(request)?;
        let head = Head::read(&mut connection)?;
        read_body(&head, &mut connection, &mut take)?;
        // Only a connection whose answer was read to its end is good for another one.
        if head.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(head)
    }

    /// The same with the whole body at once.
    ///
    /// # Errors
    /// As `stream`.
    pub fn send(&mut self, request: &[u8]) -> Result<Answer> {
        let mut body = Vec::new();
        let head = self.stream(request, |part| body.extend_from_slice(part))?;
        Ok(Answer { head, body })
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, stream))
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: sandbar\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method != "GET" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the answer has {what}"))
}

/// A line without its end.
fn line(source: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    source.take(BUFFER_BYTES as u64).read_line(&mut line)?;
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
}

fn read_body(head: &Head, source: &mut impl BufRead, take: &mut impl FnMut(&[u8])) -> Result<()> {
    if head.header("transfer-encoding") != Some("chunked") {
        let length = head.header("content-length").unwrap_or("0");
        return read_exactly(length.parse().map_err(|_| broken("no length"))?, source, take);
    }
    loop {
        let size = line(source)?;
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| broken("a part without a size"))?;
        read_exactly(size, source, take)?;
        if !line(source)?.is_empty() {
            return Err(broken("a part that is longer than it says"));
        }
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(mut length: u64, source: &mut impl BufRead, take: &mut impl FnMut(&[u8])) -> Result<()> {
    while length > 0 {
        let part = source.fill_buf()?;
        if part.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let taken = part.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        take(&part[..taken]);
        source.consume(taken);
        length -= taken as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
