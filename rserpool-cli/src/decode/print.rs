//! Prints messages as text or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use rserpool::Ppid;
use rserpool::proto::wire::{Body, Bytes, Message};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Decoded;
use super::capture::{Found, Unread};

/// Prints messages, and counts them.
#[derive(Debug)]
pub(super) struct Printer<W> {
    out: W,
    json: bool,
    types: BTreeMap<&'static str, u64>,
    messages: u64,
    same: u64,
    errors: u64,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, json: bool) -> Self {
        Self { out, json, types: BTreeMap::new(), messages: 0, same: 0, errors: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0 && self.errors == 0
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn found(&mut self, found: &Found) -> io::Result<()> {
        match &found.content {
            Ok((ppid, bytes)) => self.message(Some(found), *ppid, bytes),
            Err(error) => {
                self.errors += 1;
                self.error(Some(found), "SCTP", error, &Bytes::new())
            }
        }
    }

    pub(super) fn message(
        &mut self,
        found: Option<&Found>,
        ppid: Ppid,
        bytes: &Bytes,
    ) -> io::Result<()> {
        self.messages += 1;
        match Decoded::new(ppid, bytes) {
            Ok((decoded, same)) => {
                self.same += u64::from(same);
                match decoded {
                    Decoded::Asap(message) => self.decoded(found, &message, same),
                    Decoded::Enrp(message) => self.decoded(found, &message, same),
                }
            }
            Err(error) => {
                self.errors += 1;
                let protocol = if ppid == Ppid::ENRP { "ENRP" } else { "ASAP" };
                self.error(found, protocol, &error.to_string(), bytes)
            }
        }
    }

    fn decoded<B: Body + Serialize>(
        &mut self,
        found: Option<&Found>,
        message: &Message<B>,
        same: bool,
    ) -> io::Result<()> {
        let name = message.body.name();
        *self.types.entry(name).or_default() += 1;
        let parameters = serde_json::to_value(&message.body)?;
        let unrecognized = serde_json::to_value(message.unrecognized())?;
        if self.json {
            let mut object = origin(found);
            object.insert("message".into(), name.into());
            object.insert("type".into(), message.body.message_type().into());
            object.insert("flags".into(), message.flags().into());
            object.insert("parameters".into(), parameters);
            if !message.unrecognized().is_empty() {
                object.insert("unrecognized".into(), unrecognized);
            }
            object.insert("reencodes".into(), same.into());
            return writeln!(self.out, "{}", Value::Object(object));
        }
        let mut line = prefix(found);
        let _ = write!(
            line,
            "{name} type={:#04x} flags={:#04x}",
            message.body.message_type(),
            message.flags()
        );
        if let Value::Object(fields) = &parameters {
            line.push_str(&fields_text(fields, " "));
        }
        if !message.unrecognized().is_empty() {
            let _ = write!(line, " unrecognized={}", text(&unrecognized));
        }
        writeln!(self.out, "{line}")
    }

    fn error(
        &mut self,
        found: Option<&Found>,
        protocol: &str,
        error: &str,
        bytes: &Bytes,
    ) -> io::Result<()> {
        if self.json {
            let mut object = origin(found);
            object.insert("protocol".into(), protocol.into());
            object.insert("error".into(), error.into());
            object.insert("bytes".into(), format!("{bytes:x}").into());
            return writeln!(self.out, "{}", Value::Object(object));
        }
        writeln!(self.out, "{}{protocol} ERROR {error}: {bytes:x}", prefix(found))
    }

    /// Prints the number of messages of each type, and what was not read.
    pub(super) fn summary(&mut self, unread: &Unread) -> io::Result<()> {
        let Self { messages, same, errors, .. } = *self;
        if self.json {
            let summary = json!({ "summary": {
                "messages": messages, "reencoded": same, "errors": errors, "types": self.types,
                "unread": {
                    "links": unread.links, "cut_off": unread.cut_off,
                    "fragments": unread.fragments, "streams": unread.streams,
                },
            }});
            return writeln!(self.out, "{summary}");
        }
        writeln!(self.out)?;
        for (name, count) in &self.types {
            writeln!(self.out, "{count:6} {name}")?;
        }
        if errors > 0 {
            writeln!(self.out, "{errors:6} not decoded")?;
        }
        writeln!(self.out, "{same} of {messages} messages re-encode to the same bytes")?;
        for (link, count) in &unread.links {
            writeln!(self.out, "not read: {count} frames of link type {link}")?;
        }
        for (count, what) in [
            (unread.cut_off, "frames are cut off in the capture"),
            (unread.fragments, "packets, of which fragments are missing"),
            (unread.streams, "directions of TCP connections, of which a part is missing"),
        ] {
            if count > 0 {
                writeln!(self.out, "not read: {count} {what}")?;
            }
        }
        Ok(())
    }
}

fn prefix(found: Option<&Found>) -> String {
    found.map_or_else(String::new, |found| {
        format!("frame {} {} -> {} ", found.frame, found.source, found.destination)
    })
}

fn origin(found: Option<&Found>) -> Map<String, Value> {
    let mut object = Map::new();
    if let Some(found) = found {
        object.insert("frame".into(), found.frame.into());
        object.insert("source".into(), found.source.to_string().into());
        object.insert("destination".into(), found.destination.to_string().into());
    }
    object
}

fn fields_text(fields: &Map<String, Value>, separator: &str) -> String {
    let mut line = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let _ = write!(line, "{separator}{name}={}", text(value));
    }
    line
}

fn text(value: &Value) -> String {
    match value {
        Value::String(string) => string.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(text).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => format!("{{{}}}", fields_text(fields, " ").trim_start()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.to_string(),
    }
}
