//! CalcApp service, compatible with rsplib: jobs that take time, and that another server continues
//! after a crash.
//!
//! A message has 24 bytes in network byte order: kind, flags, length (16 bits), job (32 bits), size
//! of the job and the completed part of it (64 bits each). The cookie consists of the last three.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rserpool::proto::wire::Bytes;
use rserpool::{ElementEvent, ElementSession, Ppid};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Broken;

/// The payload protocol identifier.
pub(crate) const CALC_APP: Ppid = Ppid(34);
const LENGTH: usize = 24;
/// Interval at which the computed work is updated.
const TICK: Duration = Duration::from_millis(50);
/// Interval between cookies.
const COOKIE_TIME: Duration = Duration::from_millis(500);

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Accept,
    Reject,
    Abort,
    Complete,
    KeepAlive,
    KeepAliveAck,
}

/// A CalcApp message. The answer to it differs only in the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) job: u32,
    pub(crate) size: u64,
    pub(crate) completed: u64,
}

impl Message {
    pub(crate) fn encode(self) -> Bytes {
        let header = [self.kind as u8, 0, 0, LENGTH as u8];
        [&header[..], &self.state()].concat().into()
    }

    /// Returns the cookie: job, size, and completed part.
    fn state(self) -> Vec<u8> {
        let [size, completed] = [self.size, self.completed].map(u64::to_be_bytes);
        [&self.job.to_be_bytes()[..], &size, &completed].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, state) = bytes.split_first_chunk::<4>()?;
        let kind = match header[0] {
            1 => Kind::Request,
            2 => Kind::Accept,
            3 => Kind::Reject,
            4 => Kind::Abort,
            5 => Kind::Complete,
            6 => Kind::KeepAlive,
            7 => Kind::KeepAliveAck,
            _ => return None,
        };
        Self::decode_state(kind, state)
    }

    fn decode_state(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let (job, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        Some(Self {
            kind,
            job: u32::from_be_bytes(*job),
            size: u64::from_be_bytes(*size),
            completed: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

/// The processor that computes the jobs of all sessions, in equal shares.
#[derive(Debug)]
pub(crate) struct Processor {
    capacity: u64,
    max_jobs: u32,
    jobs: Mutex<u32>,
    load: watch::Sender<f64>,
}

impl Processor {
    pub(crate) fn new(capacity: u64, max_jobs: u32) -> Self {
        Self { capacity, max_jobs, jobs: Mutex::new(0), load: watch::Sender::new(0.0) }
    }

    /// Subscribes to the load: the number of jobs divided by the maximum.
    pub(crate) fn load(&self) -> watch::Receiver<f64> {
        self.load.subscribe()
    }

    fn change(&self, act: impl FnOnce(&mut u32) -> bool) -> bool {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut jobs);
        let share = f64::from(*jobs) / f64::from(self.max_jobs);
        self.load.send_if_modified(|load| std::mem::replace(load, share) != share);
        done
    }

    /// Admits another job, if there is room.
    fn admit(&self) -> Option<Place<'_>> {
        let admitted = self.change(|jobs| {
            let room = *jobs < self.max_jobs;
            *jobs += u32::from(room);
            room
        });
        admitted.then(|| Place { processor: self })
    }
}

/// A job's share of the processor. Dropping it releases the share.
struct Place<'p> {
    processor: &'p Processor,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.processor.change(|jobs| {
            *jobs -= 1;
            true
        });
    }
}

impl Place<'_> {
    /// Returns the work that is done for one job in `duration`.
    fn computed(&self, duration: Duration) -> u64 {
        let jobs = *self.processor.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let share = self.processor.capacity as f64 / f64::from(jobs.max(1));
        (share * duration.as_secs_f64()) as u64
    }
}

struct Job<'p> {
    state: Message,
    place: Place<'p>,
    computed_until: Instant,
    cookie_sent: Instant,
}

/// Computes one job after another.
pub(crate) async fn serve(
    mut session: ElementSession,
    processor: &Processor,
) -> Result<(), Broken> {
    let mut job: Option<Job<'_>> = None;
    loop {
        let event = tokio::select! {
            event = session.recv() => event?,
            () = tokio::time::sleep(TICK), if job.is_some() => {
                if let Some(running) = &mut job
                    && !compute(running, &mut session).await?
                {
                    job = None;
                }
                continue;
            }
        };
        let asked = match &event {
            ElementEvent::Message(message) if message.ppid == CALC_APP => {
                Message::decode(&message.payload)
            }
            ElementEvent::CookieEcho(cookie) => Message::decode_state(Kind::Request, cookie),
            _ => None,
        };
        match asked {
            Some(asked) if asked.kind == Kind::Request => {
                let started = match job.take() {
                    None => processor.admit(),
                    Some(_) => return Err(Broken::Protocol("one job at a time")),
                };
                let kind = if started.is_some() { Kind::Accept } else { Kind::Reject };
                let answer = Message { kind, size: 0, completed: 0, ..asked };
                session.send(CALC_APP, answer.encode()).await?;
                if let Some(place) = started {
                    let now = Instant::now();
                    session.send_cookie(asked.state()).await?;
                    job = Some(Job { state: asked, place, computed_until: now, cookie_sent: now });
                }
            }
            Some(asked) if asked.kind == Kind::KeepAlive => {
                let answer = Message { kind: Kind::KeepAliveAck, ..asked };
                session.send(CALC_APP, answer.encode()).await?;
            }
            Some(asked) if asked.kind == Kind::Abort => job = None,
            _ => {}
        }
    }
}

/// Continues with a job, and sends a message when it is complete or a cookie is due. Returns
/// whether the job continues.
async fn compute(job: &mut Job<'_>, session: &mut ElementSession) -> Result<bool, Broken> {
    let now = Instant::now();
    let done = job.place.computed(now - job.computed_until);
    job.computed_until = now;
    let state = &mut job.state;
    state.completed = state.completed.saturating_add(done).min(state.size);
    if state.completed == state.size {
        let complete = Message { kind: Kind::Complete, ..*state };
        session.send(CALC_APP, complete.encode()).await?;
        return Ok(false);
    }
    if now - job.cookie_sent >= COOKIE_TIME {
        job.cookie_sent = now;
        session.send_cookie(state.state()).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_rsplib() {
        let message = Message { kind: Kind::Complete, job: 7, size: 300, completed: 2 };
        let bytes = message.encode();
        assert_eq!(
            bytes[..],
            [5, 0, 0, 24, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 44, 0, 0, 0, 0, 0, 0, 0, 2]
        );
        assert_eq!(Message::decode(&bytes), Some(message));
        assert_eq!(Message::decode(&bytes[..23]), None);
        assert_eq!(Message::decode(&[9; 24]), None);
    }

    #[test]
    fn places_are_limited_and_free_again() {
        let processor = Processor::new(100, 2);
        let first = processor.admit().unwrap();
        assert_eq!(first.computed(Duration::from_secs(1)), 100);
        let second = processor.admit().unwrap();
        assert!(processor.admit().is_none());
        assert_eq!(first.computed(Duration::from_secs(1)), 50);
        drop(second);
        assert!(processor.admit().is_some());
        assert_eq!(*processor.load().borrow(), 0.5);
    }
}
