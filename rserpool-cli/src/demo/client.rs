//! A client of the demonstration, which sends requests and checks the count in the replies.

use std::time::Duration;

use rserpool::{PoolUser, RequestError, RequestEvent, RequestSession, ResolveOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::pool;
use crate::serve::read_count;

/// Pause between a reply and the next request.
const PAUSE: Duration = Duration::from_millis(1);

/// Interval between the progress reports of a client.
const PROGRESS: Duration = Duration::from_millis(500);

/// A report of a client.
#[derive(Debug)]
pub(super) enum News {
    /// The session is served by this element.
    Served { session: usize, by: String },
    /// The element failed, and another took over and has answered.
    FailedOver {
        session: usize,
        from: String,
        to: String,
        count: u64,
        answered: Instant,
        noticed: Instant,
    },
    /// The counters so far.
    Progress { session: usize, tally: Tally },
    /// The session failed.
    Broken { session: usize, error: RequestError },
}

/// Counters of a client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Requests that were started.
    pub(super) sent: u64,
    /// Requests that received the expected reply.
    pub(super) answered: u64,
    /// Requests that were counted or answered more than once.
    pub(super) answered_twice: u64,
    /// Requests that are missing in the server's count.
    pub(super) missed: u64,
}

/// Resolves the pool again and again after a registrar was killed, until there is an answer.
/// Returns the time until then.
pub(super) async fn resolve_again(user: PoolUser) -> Duration {
    let begun = Instant::now();
    while user.resolve(pool(), ResolveOptions::default()).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    begun.elapsed()
}

/// Sends requests to the pool until `stopped` is set.
pub(super) async fn count(
    number: usize,
    session: RequestSession,
    tell: mpsc::Sender<News>,
    stopped: watch::Receiver<bool>,
) {
    let mut client = Client { number, session, tell, tally: Tally::default(), failover: None };
    if let Some(by) = client.session.element() {
        client.say(News::Served { session: number, by: by.to_string() }).await;
    }
    let result = client.run(stopped).await;
    let _ = client.tell.send(News::Progress { session: number, tally: client.tally }).await;
    match result {
        Ok(()) => client.session.close().await,
        Err(error) => {
            let _ = client.tell.send(News::Broken { session: number, error }).await;
        }
    }
}

struct Client {
    number: usize,
    session: RequestSession,
    tell: mpsc::Sender<News>,
    tally: Tally,
    /// A failover without an answer so far: the old element, the new one, and the start.
    failover: Option<(String, String, Instant)>,
}

impl Client {
    async fn run(&mut self, stopped: watch::Receiver<bool>) -> Result<(), RequestError> {
        let mut progress = Instant::now();
        while !*stopped.borrow() {
            self.tally.sent += 1;
            self.request().await?;
            if progress.elapsed() >= PROGRESS {
                progress = Instant::now();
                self.say(News::Progress { session: self.number, tally: self.tally }).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn say(&self, news: News) {
        let _ = self.tell.send(news).await;
    }

    /// Sends one request, to as many servers as necessary.
    async fn request(&mut self) -> Result<(), RequestError> {
        let body = self.tally.sent.to_be_bytes().to_vec();
        self.session.submit(body).expect("one at a time has room");
        loop {
            match self.session.event().await? {
                RequestEvent::FailoverStarted { from } => {
                    let noticed = Instant::now();
                    self.failover = Some((from.to_string(), String::new(), noticed));
                }
                RequestEvent::FailoverCompleted { to, .. } => {
                    if let Some((_, next, _)) = &mut self.failover {
                        *next = to.to_string();
                    }
                }
                RequestEvent::Reply { body, .. } => {
                    self.check(read_count(&body));
                    self.answered().await;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Compares a reply with the expected one.
    fn check(&mut self, count: Option<u64>) {
        let expected = self.tally.sent;
        match count.unwrap_or(0) {
            count if count == expected => self.tally.answered += 1,
            // The server's count is behind, or ahead of, the answered requests.
            count if count < expected => self.tally.missed += expected - count,
            count => self.tally.answered_twice += count - expected,
        }
    }

    async fn answered(&mut self) {
        if let Some((from, to, noticed)) = self.failover.take() {
            let (session, count) = (self.number, self.tally.sent);
            let answered = Instant::now();
            self.say(News::FailedOver { session, from, to, count, answered, noticed }).await;
        }
    }
}
