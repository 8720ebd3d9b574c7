//! Writes the log to standard error, and never blocks or makes the program exit. If the log cannot
//! be written (the disk is full, or the reader has closed it or does not read), lines are dropped
//! and counted. The count is logged when writing works again.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Maximum number of lines that wait to be written.
const MAX_WAITING: usize = 1024;

/// Maximum length of a line in bytes; it may contain data from other hosts.
const MAX_LINE: usize = 4096;

/// Maximum time to wait for the remaining lines when the program exits.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

enum Item {
    Line(Vec<u8>),
    /// Requests an answer once all earlier lines are written or lost.
    Flush(SyncSender<()>),
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

static WRITER: OnceLock<SyncSender<Item>> = OnceLock::new();

/// The number of lines that were dropped since the last report of them.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text for each event
    #[default]
    Text,
    /// An object for each event
    Json,
    /// Lines for the journal of systemd, with the priority of each and without the time
    Journald,
}

/// Starts to log panics and events; a higher `verbose` logs more events.
pub(crate) fn start(verbose: u8, format: LogFormat) {
    let (sender, lines) = sync_channel(MAX_WAITING);
    let thread = std::thread::Builder::new().name("log".to_owned());
    // Without the thread, all lines are dropped, but the program can still run.
    let _ = thread.spawn(move || write_all(&lines, &LOST, &mut io::stderr()));
    let _ = WRITER.set(sender);
    let _ = FORMAT.set(format);
    let default = match verbose {
        0 => "rserpool=warn,rserpool::notice=info",
        1 => "rserpool=info",
        _ => "rserpool=trace",
    };
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|chosen| !chosen.is_empty());
    let filter = match chosen.map(|chosen| EnvFilter::builder().parse(chosen)) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            message(&format!("RUST_LOG is ignored: {error}"));
            EnvFilter::new(default)
        }
        None => EnvFilter::new(default),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Journald => log.with_ansi(false).event_format(Journal::default()).init(),
    }
    std::panic::set_hook(Box::new(|panic| message(&format!("rserpool: {panic}"))));
}

/// Writes events as the journal of systemd reads them: with the priority of sd-daemon(3) in front.
struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time().with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Writes a line for a person, after all earlier log lines.
pub(crate) fn message(text: &str) {
    push(line_of(FORMAT.get().copied().unwrap_or_default(), text));
}

/// Returns a line for a person in the form of the log.
fn line_of(format: LogFormat, text: &str) -> Vec<u8> {
    let line = match format {
        LogFormat::Text => text.to_owned(),
        LogFormat::Json => serde_json::json!({ "message": text }).to_string(),
        LogFormat::Journald => format!("<5>{}", text.replace('\n', "\n<5>")),
    };
    (line + "\n").into_bytes()
}

/// Waits until the log is written, at most [`FLUSH_TIMEOUT`].
pub(crate) fn flush() {
    let Some(writer) = WRITER.get() else { return };
    let (done, wait) = sync_channel(1);
    if writer.try_send(Item::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn push(mut line: Vec<u8>) {
    let is_json = FORMAT.get() == Some(&LogFormat::Json);
    if line.len() > MAX_LINE && is_json {
        line = line_of(LogFormat::Json, &format!("a line of {} bytes was left out", line.len()));
    } else if line.len() > MAX_LINE {
        line.truncate(MAX_LINE);
        line.extend_from_slice(" ...\n".as_bytes());
    }
    let sent = WRITER.get().is_some_and(|writer| writer.try_send(Item::Line(line)).is_ok());
    if !sent {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

fn write_all(lines: &Receiver<Item>, lost: &AtomicU64, to: &mut impl Write) {
    for item in lines {
        match item {
            Item::Line(line) => write_line(&line, lost, to),
            Item::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// Writes a line. If lines before it were dropped, writes their number first.
fn write_line(line: &[u8], lost: &AtomicU64, to: &mut impl Write) {
    let missing = lost.swap(0, Ordering::Relaxed);
    let mut text = Vec::new();
    if missing > 0 {
        let format = FORMAT.get().copied().unwrap_or_default();
        text.extend_from_slice(&line_of(format, &format!("{missing} log lines were lost")));
    }
    text.extend_from_slice(line);
    if to.write_all(&text).and_then(|()| to.flush()).is_err() {
        lost.fetch_add(missing + 1, Ordering::Relaxed);
    }
}

/// Writer for the log events, which queues each event as one line.
#[derive(Debug, Clone, Copy)]
struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that fails while `full` is set, as a full disk does.
    #[derive(Default)]
    struct Disk {
        full: bool,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_are_lost_are_counted_and_told() {
        let (mut disk, lost) = (Disk::default(), AtomicU64::new(0));
        write_line(b"one\n", &lost, &mut disk);
        disk.full = true;
        for _ in 0..3 {
            write_line(b"two\n", &lost, &mut disk);
        }
        disk.full = false;
        write_line(b"three\n", &lost, &mut disk);
        write_line(b"four\n", &lost, &mut disk);
        assert_eq!(disk.text, b"one\n3 log lines were lost\nthree\nfour\n");
    }
}
