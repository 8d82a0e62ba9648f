//! A host that answers as it is told and keeps what it was asked, for the tests of what asks one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use serde_json::Value;

/// What came in.
#[derive(Debug)]
pub struct Asked {
    /// `POST /v1/apps/vote/rollback?to=1`.
    pub line: String,
    /// In lower case, `name: value`.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Asked {
    /// Method, and path with query.
    pub fn what(&self) -> String {
        self.line.trim_end_matches(" HTTP/1.1").to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| header.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Its address, and what it was asked, one request for each of the answers.
pub fn host_of(answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let host = thread::spawn(move || answers.into_iter().map(|answer| serve(&listener, &answer)).collect());
    (url, host)
}

fn serve(listener: &TcpListener, (status, answer): &(u16, Value)) -> Asked {
    let (mut stream, _) = listener.accept().expect("a request");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a request");
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let line = head.remove(0);
    let headers: Vec<String> = head.iter().map(|header| header.to_lowercase()).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("as many bytes as were announced");
    let text = answer.to_string();
    let length = text.len();
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}")
        .expect("a reader");
    Asked { line, headers, body }
}
