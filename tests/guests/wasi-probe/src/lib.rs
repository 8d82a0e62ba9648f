//! Asks WASI for what a module must not get: files, environment, network, real time, real randomness. Built with raw
//! `wit-bindgen`, without the SDK. The key of the first record is a command, its value an argument.

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "sandbar:wasi-probe/probe",
    generate_all,
});

use exports::sandbar::processor::processor::Guest;
use sandbar::processor::types::{
    Columns, Headers, InputBatch, NullableColumns, Outcome, OutputBatch, Sink, Source, SubTopology, TaskId, Topology,
};
use wasi::cli::{environment, exit, stderr, stdin, stdout, terminal_stderr, terminal_stdin, terminal_stdout};
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::filesystem::preopens;
use wasi::random::{insecure, insecure_seed, random};
use wasi::sockets::network::IpAddressFamily;
use wasi::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};

struct Probe;

impl Guest for Probe {
    fn describe() -> Topology {
        let sub_topology = SubTopology {
            sources: vec![Source { name: "commands".to_owned(), options: Vec::new() }],
            stores: Vec::new(),
            sinks: vec![Sink { name: "answers".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        Ok(())
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        let (command, argument) = (text(&batch.keys), text(&batch.values));
        if let Some(found) = reach_out(&command, &argument) {
            return Ok(answer(&found));
        }
        Ok(answer(&match command.as_str() {
            "environment" => format!(
                "{:?} {:?} {:?}",
                environment::get_environment(),
                environment::get_arguments(),
                environment::initial_cwd()
            ),
            "files" => format!("{} folders", preopens::get_directories().len()),
            "network" => {
                let socket = tcp_create_socket::create_tcp_socket(wasi::sockets::network::IpAddressFamily::Ipv4);
                let network = instance_network::instance_network();
                let addresses = ip_name_lookup::resolve_addresses(&network, "localhost");
                format!("{:?} {:?}", socket.err(), addresses.err())
            }
            "insecure" => {
                format!("{:?} {}", insecure::get_insecure_random_bytes(9), insecure::get_insecure_random_u64())
            }
            "seed" => format!("{:?}", insecure_seed::insecure_seed()),
            "monotonic" => format!("{}", monotonic_clock::now()),
            "wall-clock" => {
                let (first, second) = (wall_clock::now(), wall_clock::now());
                format!("{}.{:09} {}", first.seconds, first.nanoseconds, first.nanoseconds == second.nanoseconds)
            }
            "sleep" => {
                let before = monotonic_clock::now();
                monotonic_clock::subscribe_duration(3_600_000_000_000).block();
                format!("slept {} s", (monotonic_clock::now() - before) / 1_000_000_000)
            }
            "random" => format!(
                "{:?} {} {:?}",
                random::get_random_bytes(9),
                random::get_random_u64(),
                insecure_seed::insecure_seed()
            ),
            "random-huge" => format!("{}", random::get_random_bytes(1 << 30).len()),
            "print" => {
                let written = stdout::get_stdout().blocking_write_and_flush(argument.as_bytes());
                stderr::get_stderr().blocking_write_and_flush(b"to stderr\n").is_ok().to_string()
                    + &written.is_ok().to_string()
            }
            "print-for-ever" => loop {
                if stdout::get_stdout().blocking_write_and_flush(b"no newline").is_err() {
                    break "closed".to_owned();
                }
            },
            "keep-streams" => {
                let streams: Vec<_> = (0..1_000_000).map(|_| stdout::get_stdout()).collect();
                streams.len().to_string()
            }
            "exit" => {
                exit::exit(Err(()));
                "still here".to_owned()
            }
            "not-offered" => wasi::keyvalue::store::open("data").to_string(),
            other => return Err(format!("no command {other}")),
        }))
    }

    fn punctuate(_schedule: u32, _time: i64) -> Result<Outcome, String> {
        Err("no schedules".to_owned())
    }
}

export!(Probe);

/// Asks for one part of the world outside and tells what there is of it.
fn reach_out(command: &str, argument: &str) -> Option<String> {
    Some(match command {
        "variables" => format!("{:?}", environment::get_environment()),
        "arguments" => format!("{:?}", environment::get_arguments()),
        "working-folder" => format!("{:?}", environment::initial_cwd()),
        "standard-input" => format!("{:?}", stdin::get_stdin().blocking_read(100).is_ok()),
        "terminals" => format!(
            "{} {} {}",
            terminal_stdin::get_terminal_stdin().is_some(),
            terminal_stdout::get_terminal_stdout().is_some(),
            terminal_stderr::get_terminal_stderr().is_some()
        ),
        "tcp-4" => format!("{:?}", tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4).err()),
        "tcp-6" => format!("{:?}", tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv6).err()),
        "udp-4" => format!("{:?}", udp_create_socket::create_udp_socket(IpAddressFamily::Ipv4).err()),
        "udp-6" => format!("{:?}", udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6).err()),
        "resolve" => {
            let network = instance_network::instance_network();
            format!("{:?}", ip_name_lookup::resolve_addresses(&network, argument).err())
        }
        "http" => wasi::http::outgoing_handler::handle(argument).to_string(),
        _ => return None,
    })
}

fn answer(text: &str) -> Outcome {
    let column =
        |bytes: &[u8]| NullableColumns { bytes: bytes.to_vec(), ends: vec![bytes.len() as u32], nulls: Vec::new() };
    let headers = Headers {
        counts: Vec::new(),
        keys: Columns { bytes: Vec::new(), ends: Vec::new() },
        values: NullableColumns { bytes: Vec::new(), ends: Vec::new(), nulls: Vec::new() },
    };
    let outputs = OutputBatch {
        sinks: Vec::new(),
        partitions: Vec::new(),
        timestamps: vec![0],
        keys: column(b""),
        values: column(text.as_bytes()),
        headers,
    };
    Outcome { outputs, refused: Vec::new() }
}

/// The first item.
fn text(columns: &NullableColumns) -> String {
    let end = columns.ends.first().copied().unwrap_or(0) as usize;
    String::from_utf8_lossy(&columns.bytes[..end]).into_owned()
}
