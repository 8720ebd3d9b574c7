//! `rserpool decode`: prints the messages of a capture, or a single message.

mod capture;
mod link;
mod print;
mod sctp;
mod tcp;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use rserpool::Ppid;
use rserpool::proto::wire::{Body, Bytes, DecodeError, Message, asap, enrp};

use capture::Unread;
use print::Printer;

/// Print the ASAP and ENRP messages of a capture, or a single message
///
/// Messages are read from SCTP (also encapsulated in UDP port 9899), from TCP at any port, with the
/// control messages of sessions, and from UDP ports 3863 and 9901, over IPv4 and IPv6, with fragments
/// and tunnels. The capture is a pcapng or pcap file, also compressed by gzip, of Ethernet, Linux
/// cooked, loopback, PPP or raw IP. The exit status is 1 if a message does not decode, or if there are
/// no messages in a capture of which something could not be read.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct Arguments {
    /// Capture file, or - for standard input
    #[arg(value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// An ASAP message, in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = hex, group = "input")]
    asap: Option<Bytes>,
    /// An ENRP message, in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = hex, group = "input")]
    enrp: Option<Bytes>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// Reads hexadecimal digits; spaces and colons are ignored.
fn hex(text: &str) -> Result<Bytes, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    if let Some(wrong) = digits.iter().find(|digit| !digit.is_ascii_hexdigit()) {
        return Err(format!("{wrong:?} is not a hexadecimal digit"));
    }
    if digits.len() % 2 == 1 {
        return Err("an odd number of digits".to_owned());
    }
    let value = |digit: char| digit.to_digit(16).unwrap_or_default() as u8;
    Ok(digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect())
}

/// A decoded message of either protocol.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Decoded {
    /// An ASAP message.
    Asap(asap::Message),
    /// An ENRP message.
    Enrp(enrp::Message),
}

impl Decoded {
    /// Decodes a message of the protocol `ppid`. Also returns whether it encodes to the same bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is not a message of that protocol.
    pub(crate) fn new(ppid: Ppid, bytes: &Bytes) -> Result<(Self, bool), DecodeError> {
        fn check<B: Body>(bytes: &Bytes) -> Result<(Message<B>, bool), DecodeError> {
            let message = Message::decode(bytes)?;
            let same = message.encode().is_ok_and(|encoded| encoded == *bytes);
            Ok((message, same))
        }
        if ppid == Ppid::ENRP {
            check(bytes).map(|(message, same)| (Self::Enrp(message), same))
        } else {
            check(bytes).map(|(message, same)| (Self::Asap(message), same))
        }
    }
}

/// Runs `rserpool decode`.
///
/// # Errors
///
/// Returns an error if the file cannot be read or is not a capture.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut printer = Printer::new(std::io::stdout().lock(), arguments.json);
    if let Some(file) = &arguments.file {
        let name = file.display();
        let capture: Box<dyn std::io::Read + Send> = match file.as_os_str() == "-" {
            true => Box::new(std::io::stdin()),
            false => {
                Box::new(std::fs::File::open(file).with_context(|| format!("cannot open {name}"))?)
            }
        };
        let mut printed = Ok(());
        let read = capture::read(capture, &mut |found| {
            if printed.is_ok() {
                printed = printer.found(&found);
            }
        });
        if quiet(printed)? {
            return Ok(ExitCode::SUCCESS);
        }
        let complete = read.with_context(|| format!("cannot go on reading {name}"));
        let none = Unread::default();
        if complete.is_ok() || !printer.is_empty() {
            quiet(printer.summary(complete.as_ref().unwrap_or(&none)))?;
        }
        let unread = complete?;
        if printer.is_empty() && !unread.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
    } else {
        let message = arguments.asap.as_ref().map(|bytes| (Ppid::ASAP, bytes));
        let message = message.or(arguments.enrp.as_ref().map(|bytes| (Ppid::ENRP, bytes)));
        let (ppid, bytes) = message.context("nothing to decode")?;
        quiet(printer.message(None, ppid, bytes))?;
    }
    Ok(if printer.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Turns the error of a broken pipe into success, for programs such as `head` that stop reading
/// early. Returns true if the pipe was broken.
fn quiet(result: std::io::Result<()>) -> std::io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error),
    }
}
