//! Registers many elements over one connection, acknowledges all of their keep-alives, and reports
//! how many the registrar removed nevertheless.
#![allow(clippy::disallowed_methods, reason = "it measures a real process")]

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rserpool_proto::testing::by_hand::registration;
use rserpool_proto::wire::asap::{self, Body};
use rserpool_proto::wire::{RegistrationLife, TransportAddress};

/// Number of elements in a pool.
const POOL_SIZE: u32 = 1000;
/// Number of registrations in progress at a time.
const BATCH: u32 = 1000;

/// Registers elements that are idle except for their keep-alives
#[derive(Debug, Parser)]
struct Arguments {
    /// Path of the `rserpool` command
    #[arg(long, default_value = "target/release/rserpool")]
    rserpool: PathBuf,
    #[arg(long, default_value_t = 1_000_000)]
    elements: u32,
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let at = SocketAddr::from(([127, 0, 0, 1], 14_863));
    let no_limit = u32::MAX.to_string();
    let mut command = Command::new(&arguments.rserpool);
    command.args(["registrar", "--asap", &at.to_string(), "--transport", "tcp", "--no-announce"]);
    for limit in [
        "--max-elements",
        "--max-elements-in-all",
        "--max-bytes",
        "--max-bytes-in-all",
        "--max-registrations",
    ] {
        command.args([limit, &no_limit]);
    }
    let mut registrar = command.stdout(Stdio::null()).spawn()?;
    let outcome = look_after(at, &arguments, registrar.id());
    registrar.kill()?;
    registrar.wait()?;
    outcome
}

/// Registers the elements, and acknowledges keep-alives until the time is over.
fn look_after(at: SocketAddr, arguments: &Arguments, registrar: u32) -> io::Result<()> {
    let mut stream = connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone()?);
    let mut seen = Seen::default();
    let begin = Instant::now();
    let mut sent = 0;
    while seen.registered < arguments.elements {
        let mut batch = Vec::new();
        let begun = sent;
        for number in begun..arguments.elements.min(begun + BATCH) {
            let mut element = registration(&format!("Pool{}", number / POOL_SIZE), number + 1);
            element.pool_element.user_transport = TransportAddress::tcp(at).into();
            element.pool_element.asap_transport = None;
            element.pool_element.registration_life = RegistrationLife::INFINITE;
            batch.extend_from_slice(&encode(element));
            sent += 1;
        }
        stream.write_all(&batch)?;
        while seen.registered + seen.refused < sent {
            seen.answer(&mut reader, &mut stream)?;
        }
    }
    let took = begin.elapsed();
    println!("{} registered within {took:.1?}, {} refused", seen.registered, seen.refused);
    seen.acknowledged = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(arguments.seconds) {
        seen.answer(&mut reader, &mut stream)?;
    }
    let memory = fs::read_to_string(format!("/proc/{registrar}/status"))?;
    let memory = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!(
        "{} s: {} removed, {} keep-alives acknowledged, {}",
        arguments.seconds,
        seen.removed,
        seen.acknowledged,
        memory.split_whitespace().collect::<Vec<_>>().join(" "),
    );
    Ok(())
}

/// Connects to the registrar, once it accepts connections.
fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(at) {
            Err(_) if begin.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    registered: u32,
    refused: u32,
    removed: u32,
    acknowledged: u64,
    /// Complete messages, which are written when there is nothing to read.
    acknowledgements: Vec<u8>,
}

impl Seen {
    /// Reads a message, and answers it if it needs an answer.
    fn answer(
        &mut self,
        reader: &mut BufReader<TcpStream>,
        stream: &mut TcpStream,
    ) -> io::Result<()> {
        if reader.buffer().is_empty() && !self.acknowledgements.is_empty() {
            stream.write_all(&std::mem::take(&mut self.acknowledgements))?;
        }
        let mut message = vec![0; 4];
        reader.read_exact(&mut message)?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(length.next_multiple_of(4), 0);
        reader.read_exact(&mut message[4..])?;
        match asap::Message::decode(&message.into()).map_err(io::Error::other)?.body {
            Body::RegistrationResponse(response) if response.reject => self.refused += 1,
            Body::RegistrationResponse(_) => self.registered += 1,
            Body::DeregistrationResponse(_) => self.removed += 1,
            Body::EndpointKeepAlive(keep_alive) => {
                let Some(identifier) = keep_alive.identifier else { return Ok(()) };
                let pool_handle = keep_alive.pool_handle;
                let ack = asap::EndpointKeepAliveAck { pool_handle, identifier };
                self.acknowledgements.extend_from_slice(&encode(ack));
                self.acknowledged += 1;
            }
            other => println!("{other:?}"),
        }
        Ok(())
    }
}

fn encode(message: impl Into<asap::Message>) -> Vec<u8> {
    message.into().encode().expect("a message that fits").to_vec()
}
