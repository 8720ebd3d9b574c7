//! The client of pingpong.

use std::time::Duration;

use clap::Args;
use rserpool::{PoolHandle, SessionEvent};
use tokio::time::MissedTickBehavior;

use super::Service;
use crate::options;
use crate::serve::{PING_PONG, Pong, make_ping};

/// Send pings, and print the numbers of their replies
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Handle of the pool
    #[arg(long, value_name = "HANDLE", value_parser = options::pool_handle,
          default_value = "PingPongPool")]
    pool: PoolHandle,
    /// Milliseconds between two pings
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Number of pings [default: no end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    service: Service,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut session = arguments.service.open(arguments.pool).await?;
    let mut next = tokio::time::interval(Duration::from_millis(arguments.interval));
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut answered) = (0, 0);
    while arguments.count.is_none_or(|count| answered < count) {
        tokio::select! {
            _ = next.tick(), if arguments.count.is_none_or(|count| sent < count) => {
                sent += 1;
                session.send(PING_PONG, make_ping(sent, b"rserpool")).await?;
            }
            event = session.recv() => match event? {
                SessionEvent::Message(message) => {
                    if let Some(pong) = Pong::decode(&message.payload) {
                        answered = answered.max(pong.number);
                        let element = session.element();
                        let element = element.map_or_else(String::new, |e| e.to_string());
                        out!("ping {} from {element}: reply {}", pong.number, pong.reply);
                    }
                }
                SessionEvent::FailoverStarted { from } => out!("-- {from} failed"),
                SessionEvent::FailoverCompleted { to, .. } => {
                    out!("-- {to} took over");
                    for number in answered + 1..=sent {
                        session.send(PING_PONG, make_ping(number, b"rserpool")).await?;
                    }
                }
                _ => {}
            },
        }
    }
    session.close().await;
    Ok(())
}
