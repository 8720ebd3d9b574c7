//! `rserpool terminal`.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rserpool::proto::wire::escape;
use rserpool::{PoolHandle, Ppid, Session, SessionClosed, SessionError, SessionEvent};
use tokio::sync::mpsc;

use super::resolve::explain_resolve;
use crate::options::{self, RegistrarOption, TransportOption};

/// Time to wait for further replies after the end of the input.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// Talk to a pool: send lines to one of its servers, and to another when that crashes
///
/// Each line of standard input is sent as a message, and each message that is received is printed.
/// After a failover, the lines without a reply are sent again to the new server. Events of the
/// session are printed on standard error.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let user = arguments.registrar.user(&network, &arguments.transport, options::impatient).await?;
    let session = user.open(arguments.pool).await.map_err(explain_session)?;
    talk(session).await?;
    Ok(ExitCode::SUCCESS)
}

/// Explains why there is no session, and what to do about it.
pub(crate) fn explain_session(error: SessionError) -> anyhow::Error {
    match error {
        SessionError::Resolve(error) => explain_resolve(error),
        other => other.into(),
    }
}

/// Starts a thread that reads standard input. Returns the channel of its lines.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Returns the text of a reply, with control characters and others that could disturb a terminal
/// escaped. Tabs and line feeds stay.
fn printable(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    text.split_inclusive(['\t', '\n']).map(printable_part).collect()
}

fn printable_part(part: &str) -> String {
    let end = part.trim_end_matches(['\t', '\n']).len();
    escape(&part[..end]) + &part[end..]
}

async fn talk(mut session: Session) -> anyhow::Result<()> {
    let mut lines = lines();
    let mut unanswered: VecDeque<String> = VecDeque::new();
    let mut since = None;
    let mut at_end = false;
    loop {
        // After the end of the input, wait for replies that are still due.
        let timeout = if unanswered.is_empty() { LAST_REPLIES / 4 } else { LAST_REPLIES };
        tokio::select! {
            event = session.recv() => match event {
                Ok(SessionEvent::Connected(element)) => notify!("-- connected to {element}"),
                Ok(SessionEvent::Message(message)) => {
                    // Replies come in the order of the lines.
                    unanswered.pop_front();
                    out!("{}", printable(&message.payload));
                }
                Ok(SessionEvent::FailoverStarted { from }) => {
                    notify!("-- {from} failed, looking for another");
                    #[allow(clippy::disallowed_methods, reason = "for the eye alone")]
                    let now = Instant::now();
                    since = Some(now);
                }
                Ok(SessionEvent::FailoverCompleted { to, .. }) => {
                    let took = since.take().map(|since: Instant| since.elapsed());
                    notify!("-- {to} took over after {:.1?}", took.unwrap_or_default());
                    for line in &unanswered {
                        session.send(Ppid::NONE, line.clone().into_bytes()).await?;
                    }
                }
                Ok(_) => {}
                Err(SessionClosed::ByPeer) => {
                    notify!("-- closed by the server");
                    return Ok(());
                }
                Err(SessionClosed::Failed(error)) => return Err(explain_session(error)),
                Err(error) => return Err(error.into()),
            },
            line = lines.recv(), if !at_end => match line {
                Some(line) => {
                    session.send(Ppid::NONE, line.clone().into_bytes()).await?;
                    unanswered.push_back(line);
                }
                None => at_end = true,
            },
            () = tokio::time::sleep(timeout), if at_end => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    session.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_server_cannot_disturb_the_terminal() {
        assert_eq!(printable("gr\u{fc}n\tok\n".as_bytes()), "gr\u{fc}n\tok\n");
        assert_eq!(printable(b"\x1b]0;title\x07\r"), "\\u{1b}]0;title\\u{7}\\r");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }
}
