//! Thousands of hostile names (F3) in every place where a request may have one: each has the answer that such a name
//! has, never a 500, and no file is touched, since nothing here knows any.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use engine::testing::Seed;

use super::*;

const NAMES: usize = 5_000;
/// A request head of more bytes is refused whatever it says.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What hostile names are made of.
const PARTS: &[&[u8]] = &[
    b"..",
    b".",
    b"/",
    b"../",
    b"..%2f",
    b"%2e%2e%2f",
    b"\\",
    b"..\\",
    b"etc/passwd",
    b"\0",
    b"%00",
    b"\r\n",
    b"\n",
    b" ",
    b"a",
    b"votes",
    b"~",
    b"$(id)",
    b"`id`",
    b"'",
    b"\"",
    b"<script>",
    b"{app}",
    b"*",
    b"?",
    b"#",
    b"&",
    b"=",
    b"+",
    b";",
    b"%",
    b"%s%n",
    b"\xff\xfe",
    b"\xc0\xae",
    b"\x80",
    "\u{202e}".as_bytes(),
    "ü".as_bytes(),
    "😀".as_bytes(),
    "\u{feff}".as_bytes(),
    "e\u{301}".as_bytes(),
    b"file:///",
    b"CON",
    b"-1",
    b"99999999999999999999",
];

fn name(seed: &mut Seed) -> Vec<u8> {
    let mut name = Vec::new();
    for _ in 0..=seed.below(4) {
        name.extend_from_slice(PARTS[seed.below(PARTS.len() as u64) as usize]);
    }
    match seed.below(20) {
        0 => name.repeat(10_240 / name.len().max(1)),
        1 => name.repeat(40_960 / name.len().max(1)),
        _ => name,
    }
}

/// Percent-encodes everything that is no letter or digit.
fn encode(name: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.iter().map(one).collect()
}

/// Where names go, and what such a name gets there.
fn request(place: u64, name: &[u8]) -> (String, &'static [(u16, &'static str)]) {
    let is_text = std::str::from_utf8(name).is_ok();
    let path_of = |path: String, kind: &'static [(u16, &'static str)]| match is_text {
        true => (path, kind),
        false => (path, &[(400, "bad-request")][..]),
    };
    let encoded = encode(name);
    let store = "/v1/apps/vote/stores/votes";
    match place {
        0 => path_of(format!("/v1/apps/{encoded}"), &[(404, "app-not-found")]),
        1 => path_of(format!("/v1/apps/{encoded}/stores/votes/entries"), &[(404, "app-not-found")]),
        2 if name == b"votes" => (format!("{store}/entries"), &[(200, "")]),
        2 => path_of(format!("/v1/apps/vote/stores/{encoded}/entries"), &[(404, "store-not-found")]),
        3 if name == b"votes" => (format!("{store}/entries"), &[(200, "")]),
        3 => path_of(format!("/v1/apps/vote/stores/{encoded}/keys/b"), &[(404, "store-not-found")]),
        4 if name == b"a" => (format!("{store}/keys/a"), &[(200, "")]),
        4 => path_of(format!("{store}/keys/{encoded}"), &[(404, "key-not-found")]),
        5 => (format!("{store}/keys/b?key_format={encoded}"), &[(400, "bad-request")]),
        // Letters may happen to be a cursor.
        6 => (format!("{store}/entries?cursor={encoded}"), &[(400, "bad-request"), (200, "")]),
        7 => (format!("{store}/entries?{encoded}=1"), &[(400, "bad-request")]),
        8 => (format!("{store}/changes?from={encoded}"), &[(400, "bad-request")]),
        9 => path_of(format!("{store}/entries?prefix={encoded}"), &[(200, "")]),
        10 => path_of(format!("{store}/owner?key={encoded}"), &[(503, "no-routes")]),
        // As it is, so that the server's parser has something to do. What comes of it hangs on the bytes.
        _ => {
            let raw = String::from_utf8_lossy(name).replace(['\r', '\n', ' '], "");
            (format!("/v1/apps/{raw}"), RAW)
        }
    }
}

const RAW: &[(u16, &str)] = &[(400, ""), (400, "bad-request"), (404, "app-not-found"), (404, "route-not-found")];

/// Sends one request and reads its answer; the status, and the kind of problem.
fn ask_raw(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    // It may be cut off before it has sent everything.
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut reader = BufReader::new(stream);
    let (mut line, mut rest) = (String::new(), Vec::new());
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        // The reset of a connection that was closed with something unread overtakes the answer.
        return (431, String::new());
    }
    let _ = reader.read_to_end(&mut rest);
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let rest = String::from_utf8_lossy(&rest).into_owned();
    let kind = rest.split_once("urn:sandbar:problem:").map_or("", |(_, kind)| kind);
    let kind = kind.split('"').next().unwrap_or_default().to_owned();
    (status.unwrap_or_else(|| panic!("{path}: {line}{rest}")), kind)
}

#[test]
fn hostile_names_have_the_answers_of_names() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let listener = bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (_sender, stop) = tokio::sync::watch::channel(false);
    runtime.spawn(serve(listener, routes(running_host()), stop));
    let mut seed = Seed::new(17);
    let mut answers: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for number in 0..NAMES {
        let name = name(&mut seed);
        let (path, expected) = request(number as u64 % 12, &name);
        // Near the limit it hangs on the words of the head around the path.
        if (HEAD_BYTES_MAX - 200..HEAD_BYTES_MAX + 200).contains(&path.len()) {
            continue;
        }
        let found = ask_raw(address, &path);
        let shown: String = path.chars().take(200).collect();
        if path.len() > HEAD_BYTES_MAX {
            // What is no name at all may be refused before its end.
            let refused = found.0 == 431 || (expected == RAW && found.0 == 400);
            assert!(refused, "{} bytes: {found:?}: {shown}", path.len());
        } else {
            let matches = expected.iter().any(|(code, kind)| (*code, *kind) == (found.0, found.1.as_str()));
            assert!(matches, "{shown:?}: {found:?} instead of {expected:?}");
        }
        *answers.entry(found).or_default() += 1;
    }
    println!("{answers:?}");
    assert!(answers.keys().all(|(code, kind)| *code < 500 || kind == "no-routes"), "{answers:?}");
}

/// What reads no file can be brought to read none.
#[test]
fn nothing_of_the_interface_knows_files() {
    let mut looked_at = 0;
    for (path, text) in sources() {
        looked_at += 1;
        for word in ["std::fs", "tokio::fs", "std::path", "PathBuf", "File::", "std::process", "std::env"] {
            assert!(!text.contains(word), "{path} says {word}");
        }
    }
    assert!(looked_at > 10, "{looked_at} files");
}
