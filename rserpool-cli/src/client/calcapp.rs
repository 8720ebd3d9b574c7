//! Client of the service calcapp, which sends it jobs to compute.

use std::time::Duration;

use clap::Args;
use rserpool::{PoolHandle, Session, SessionEvent};
use tokio::time::Instant;

use super::Service;
use crate::options;
use crate::serve::{CALC_APP, CalcAppKind as Kind, CalcAppMessage as Message};

/// Interval between keep-alives to the server, and maximum time that the server may take to answer
/// each.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);

/// Pause after all servers have refused a job.
const REFUSED: Duration = Duration::from_millis(500);

/// Have jobs computed, one after another
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Handle of the pool
    #[arg(long, value_name = "HANDLE", value_parser = options::pool_handle,
          default_value = "CalcAppPool")]
    pool: PoolHandle,
    /// Number of computations in a job
    #[arg(long, value_name = "N", default_value_t = 5_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    job_size: u64,
    /// Number of jobs
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    #[command(flatten)]
    service: Service,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    for job in 1..=arguments.jobs {
        // A session for each job, so that the policy selects a server for each.
        let mut session = arguments.service.open(arguments.pool.clone()).await?;
        let request = Message { kind: Kind::Request, job, size: arguments.job_size, completed: 0 };
        let start = Instant::now();
        compute(&mut session, request).await?;
        out!("job {job} completed after {:.2} s", start.elapsed().as_secs_f64());
        session.close().await;
    }
    Ok(())
}

async fn compute(session: &mut Session, request: Message) -> anyhow::Result<()> {
    session.send(CALC_APP, request.encode()).await?;
    let mut asked: Option<Instant> = None;
    let mut next = Instant::now() + KEEP_ALIVE;
    loop {
        let event = tokio::select! {
            event = session.recv() => event?,
            () = tokio::time::sleep_until(next) => {
                if asked.is_some() {
                    out!("-- no answer for {:.1} s", KEEP_ALIVE.as_secs_f64());
                    asked = None;
                    session.fail_over();
                } else {
                    asked = Some(Instant::now());
                    let ask = Message { kind: Kind::KeepAlive, ..request };
                    session.send(CALC_APP, ask.encode()).await?;
                }
                next = Instant::now() + KEEP_ALIVE;
                continue;
            }
        };
        match event {
            SessionEvent::Message(message) if message.ppid == CALC_APP => {
                let Some(said) = Message::decode(&message.payload) else { continue };
                let by = session.element().map_or_else(String::new, |element| element.to_string());
                match said.kind {
                    Kind::Accept => out!("job {} accepted by {by}", request.job),
                    Kind::Reject => {
                        out!("job {} refused by {by}", request.job);
                        tokio::time::sleep(REFUSED).await;
                        session.fail_over();
                    }
                    Kind::Complete => return Ok(()),
                    Kind::KeepAlive => {
                        let answer = Message { kind: Kind::KeepAliveAck, ..said };
                        session.send(CALC_APP, answer.encode()).await?;
                    }
                    Kind::KeepAliveAck => asked = None,
                    Kind::Request | Kind::Abort => {}
                }
            }
            SessionEvent::FailoverStarted { from } => out!("-- {from} failed"),
            SessionEvent::FailoverCompleted { to, .. } => {
                out!("-- {to} took over");
                (asked, next) = (None, Instant::now() + KEEP_ALIVE);
                // If there is a cookie, the server learns of the job from that.
                if session.cookie().is_none() {
                    session.send(CALC_APP, request.encode()).await?;
                }
            }
            _ => {}
        }
    }
}
