//! The pool user's side towards its registrar (RFC 5352 section 3).

mod cache;
mod config;
mod event;
mod subscription;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{
    Compatibility, ConnectionEvent, ConnectionId, Footprint, Hunt, HuntProgress, Identity, Machine,
    Outbox, Output, Received, Timers, receive,
};
use crate::policy::RandomSource;
use crate::wire::asap::{Body, EndpointUnreachable, HandleResolution, Resolved};
use crate::wire::parameter::ItemCount;
use crate::wire::{
    ErrorCause, PoolElement, PoolElementId, PoolHandle, Ppid, TransportAddress, UserMessage, asap,
};
use cache::Cache;
use subscription::{SubscriptionId, Subscriptions};

pub use config::{ResolveOptions, UserConfig};
pub use event::{Event, ResolveError};

/// The maximum number of reports that wait for a registrar. The oldest is dropped if there are
/// more. Not from the RFCs.
const MAX_REPORTS: usize = 64;

/// The time for which a pool user keeps elements from an earlier registrar although the new
/// registrar does not know them. The new registrar may have just started, and the elements may not
/// have reached it yet. Not from the RFCs.
const GRACE: Duration = Duration::from_secs(5);

/// The maximum number of elements of an answer, which is the default of registrars.
const MAX_ITEMS: usize = 128;

/// The time for which the connection to the registrar is kept without being needed. Not from the
/// RFCs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool user. It resolves pool handles, caches the answers, reports unreachable elements, and
/// looks for another registrar when it loses its own.
#[derive(Debug)]
pub struct User {
    config: UserConfig,
    profile: Compatibility,
    home: Option<ConnectionId>,
    next_request: u64,
    queries: BTreeMap<QueryId, Query>,
    by_handle: BTreeMap<PoolHandle, QueryId>,
    cache: Cache,
    subscriptions: Subscriptions,
    reports: VecDeque<EndpointUnreachable>,
    /// The time at which the connection to the home registrar was established. Soon after that
    /// time, the registrar may not know all elements.
    home_since: Option<Instant>,
    /// True if no registrar accepted a connection in the last round of the search.
    is_alone: bool,
    hunt: Hunt,
    rng: RandomSource,
    timers: Timers<Timer>,
    out: Outbox<Event>,
}

/// Identifies a call of [`User::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct RequestId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct QueryId(u64);

/// The resolution of a handle. Answers of ASAP identify only the handle, so all requests for a
/// handle share one query.
#[derive(Debug)]
struct Query {
    handle: PoolHandle,
    items: Option<ItemCount>,
    requests: Vec<Request>,
    attempts: u32,
}

/// A request that waits for the answer to a query.
#[derive(Debug, Clone, Copy)]
struct Request {
    id: RequestId,
    /// True if an older answer in the cache will do while no registrar answers.
    allow_stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// T1-ENRPrequest: the registrar has not answered a query in time.
    Request(QueryId),
    /// Asks again for a subscribed pool.
    Subscription(SubscriptionId),
    /// Closes the connection to a registrar that was not needed for a while.
    Idle,
}

impl User {
    /// Creates a pool user that has no registrar yet and searches for one. `seed` determines its
    /// random choices.
    #[must_use]
    pub fn new(config: UserConfig, seed: u64) -> Self {
        let profile = config.hunt.profile();
        Self {
            home: None,
            next_request: 0,
            queries: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            cache: Cache::new(config.policies.clone(), config.cache_capacity),
            subscriptions: Subscriptions::default(),
            reports: VecDeque::new(),
            home_since: None,
            is_alone: false,
            hunt: Hunt::new(config.hunt.clone()),
            profile,
            rng: RandomSource::from_seed(seed),
            timers: Timers::new(),
            out: Outbox::new(profile),
            config,
        }
    }

    fn request_timeout(&self) -> Duration {
        self.config.request_timeout.unwrap_or_else(|| self.profile.request_timeout())
    }

    /// Returns the numbers of connections, timers, waiting requests and reports, and subscriptions
    /// that the user holds.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            connections: self.hunt.attempts() + usize::from(self.home.is_some()),
            timers: self.timers.len(),
            waiting: self.queries.values().map(|query| query.requests.len()).sum::<usize>()
                + self.reports.len(),
            subscriptions: self.subscriptions.len(),
            counted_hosts: 0,
            rivals: 0,
        }
    }

    /// Resolves a pool handle. The result is an [`Event::Resolved`] with the returned identifier.
    pub fn resolve(
        &mut self,
        now: Instant,
        handle: PoolHandle,
        options: &ResolveOptions,
    ) -> RequestId {
        self.out.begin();
        self.next_request += 1;
        let request = RequestId(self.next_request);
        if let Err(error) = self.profile.check(&handle, None) {
            self.out.event(Event::Resolved { request, result: Err(error.into()), complete: false });
            return request;
        }
        if let Some(elements) = self.cache.get(&handle, now, options.max_age, &mut self.rng) {
            self.out.event(Event::Resolved { request, result: Ok(elements), complete: false });
            return request;
        }
        if options.allow_stale
            && self.is_alone
            && let Some(elements) = self.cache.recall(&handle, now, &mut self.rng)
        {
            self.out.event(Event::Resolved { request, result: Ok(elements), complete: false });
            self.need_home(now);
            return request;
        }
        let waiting = Request { id: request, allow_stale: options.allow_stale };
        let items = ItemCount(options.items.unwrap_or(self.config.items));
        let items = self.profile.sends_item_count().then_some(items);
        if let Some(query) = self.by_handle.get(&handle).and_then(|id| self.queries.get_mut(id)) {
            query.requests.push(waiting);
            return request;
        }
        let id = QueryId(request.0);
        self.by_handle.insert(handle.clone(), id);
        let query = Query { handle, items, requests: vec![waiting], attempts: 0 };
        self.queries.insert(id, query);
        self.need_home(now);
        self.send_query(id);
        self.timers.set(Timer::Request(id), now + self.request_timeout());
        request
    }

    /// Replaces the registrars of the [`HuntConfig`](crate::HuntConfig). The home registrar stays
    /// until it is lost; a search that is running tries the new ones at once.
    pub fn set_registrars(&mut self, now: Instant, registrars: Vec<TransportAddress>) {
        self.out.begin();
        self.hunt.set_registrars(now, registrars, &mut self.out, self.rng.rng());
    }

    /// Removes a pool from the cache (RFC 5352 section 6.4).
    pub fn purge(&mut self, handle: &PoolHandle) {
        self.out.begin();
        self.cache.purge(handle);
    }

    /// Reports to the registrar that an element could not be reached, and removes the element from
    /// the cache (RFC 5352 section 3.5).
    pub fn report_unreachable(
        &mut self,
        now: Instant,
        handle: PoolHandle,
        identifier: PoolElementId,
    ) {
        self.out.begin();
        self.cache.remove(&handle, identifier);
        if self.profile.check(&handle, None).is_err() {
            return;
        }
        if self.reports.len() == MAX_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(EndpointUnreachable { pool_handle: handle, identifier });
        self.need_home(now);
        self.send_reports();
    }

    /// Keeps the connection to the home registrar open for a request or a report, or searches for a
    /// registrar if there is none.
    fn need_home(&mut self, now: Instant) {
        match self.home {
            Some(_) => self.timers.set(Timer::Idle, now + IDLE_TIMEOUT),
            None => self.start_hunt(now),
        }
    }

    /// Returns the time at which the connection to the home registrar was established, if this is
    /// so recent that the registrar may not know all elements yet.
    fn fresh_since(&self, now: Instant) -> Option<Instant> {
        self.home_since.filter(|since| now < *since + GRACE)
    }

    /// Closes the connection to the registrar if it was not needed for a while; it is opened again
    /// when needed.
    fn handle_idle(&mut self, now: Instant) {
        let Some(home) = self.home else { return };
        if self.queries.is_empty() && self.reports.is_empty() && self.subscriptions.len() == 0 {
            self.home = None;
            self.out.close(home);
        } else {
            self.timers.set(Timer::Idle, now + IDLE_TIMEOUT);
        }
    }

    fn send_reports(&mut self) {
        let Some(home) = self.home else { return };
        for report in self.reports.drain(..) {
            self.out.send(home, report);
        }
    }

    fn send_query(&mut self, id: QueryId) {
        let (Some(home), Some(query)) = (self.home, self.queries.get(&id)) else { return };
        let resolution = HandleResolution {
            subscribe: false,
            pool_handle: query.handle.clone(),
            items: query.items,
        };
        self.out.send(home, resolution);
    }

    /// Finishes a query: reports the answer that `result` returns to each of the query's requests.
    fn finish(
        &mut self,
        id: QueryId,
        complete: bool,
        mut result: impl FnMut(&mut Self) -> Result<Vec<PoolElement>, ResolveError>,
    ) {
        let Some(query) = self.queries.remove(&id) else { return };
        self.by_handle.remove(&query.handle);
        self.timers.cancel(Timer::Request(id));
        for Request { id: request, .. } in query.requests {
            let result = result(self);
            self.out.event(Event::Resolved { request, result, complete });
        }
    }

    fn handle_resolution_response(
        &mut self,
        now: Instant,
        response: asap::HandleResolutionResponse,
    ) {
        if self.take_update(now, &response) {
            return;
        }
        let handle = response.pool_handle;
        let Some(id) = self.by_handle.get(&handle).copied() else { return };
        match response.result {
            Resolved::Pool { policy, elements } => {
                let asked = self.queries.get(&id).and_then(|query| query.items);
                // Registrars return at most 128 elements, both this implementation's and rsplib's.
                // Without a number in the request, some return fewer than all.
                let fewer = |ItemCount(asked)| elements.len() < (asked as usize).min(MAX_ITEMS);
                let complete = asked.is_some_and(fewer) && !response.partial;
                let rng = &mut self.rng;
                let mut answer = self.cache.entry(now, policy, elements, complete, rng);
                // The policy selects anew for each request.
                self.finish(id, complete, |user| Ok(answer.select(&mut user.rng)));
                self.cache.keep(handle, answer);
            }
            Resolved::Error(error) => {
                let error = if error.causes.contains(&ErrorCause::UnknownPoolHandle) {
                    if let Some(since) = self.fresh_since(now)
                        && self.cache.recall(&handle, since, &mut self.rng).is_some()
                    {
                        let unknown = || ResolveError::UnknownPool(handle.clone());
                        return self.finish(id, false, |user| {
                            user.cache.recall(&handle, since, &mut user.rng).ok_or_else(unknown)
                        });
                    }
                    self.cache.purge(&handle);
                    ResolveError::UnknownPool(handle)
                } else {
                    ResolveError::Refused(error)
                };
                self.finish(id, false, |_| Err(error.clone()));
            }
        }
    }

    /// Handles the expiry of T1-ENRPrequest: searches for another registrar and repeats the query
    /// there, up to MAX-REQUEST-RETRANSMIT times (RFC 5352 section 3.7.2).
    fn handle_request_timeout(&mut self, now: Instant, id: QueryId) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        query.attempts += 1;
        if query.attempts > self.config.max_request_retransmit {
            let registrars = self.hunt.registrars().to_vec();
            self.answer_stale(now, id);
            self.finish(id, false, |_| Err(ResolveError::NoRegistrar(registrars.clone())));
        } else {
            self.timers.set(Timer::Request(id), now + self.request_timeout());
        }
        self.leave_home(now);
    }

    /// Answers those requests of a query that take an older answer from the cache, if there is one.
    /// The others go on.
    fn answer_stale(&mut self, now: Instant, id: QueryId) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        let requests = std::mem::take(&mut query.requests);
        for request in requests {
            let stale =
                request.allow_stale.then(|| self.cache.recall(&query.handle, now, &mut self.rng));
            match stale.flatten() {
                Some(elements) => {
                    self.out.event(Event::Resolved {
                        request: request.id,
                        result: Ok(elements),
                        complete: false,
                    });
                }
                None => query.requests.push(request),
            }
        }
        if query.requests.is_empty() {
            self.by_handle.remove(&query.handle);
            self.queries.remove(&id);
            self.timers.cancel(Timer::Request(id));
        }
    }

    /// Handles that no registrar accepts a connection: requests that take an older answer from the
    /// cache do not wait longer.
    fn handle_no_registrar(&mut self, now: Instant) {
        self.is_alone = true;
        self.out.event(Event::NoRegistrar);
        for id in self.queries.keys().copied().collect::<Vec<_>>() {
            self.answer_stale(now, id);
        }
    }

    /// Leaves a home registrar that does not answer.
    fn leave_home(&mut self, now: Instant) {
        if let Some(home) = self.home.take() {
            self.out.abort(home);
            self.lose_home(now);
        }
    }

    fn lose_home(&mut self, now: Instant) {
        self.out.event(Event::RegistrarLost);
        self.start_hunt(now);
    }

    fn handle_connection_over(&mut self, now: Instant, connection: ConnectionId) {
        match self.hunt.handle_failed(now, connection, &mut self.out) {
            HuntProgress::GoesOn => {}
            HuntProgress::NobodyFound => self.handle_no_registrar(now),
            HuntProgress::NotOurs if self.home == Some(connection) => {
                self.home = None;
                self.lose_home(now);
            }
            HuntProgress::NotOurs => {}
        }
    }

    fn start_hunt(&mut self, now: Instant) {
        self.hunt.start(now, &mut self.out, self.rng.rng());
    }
}

impl Machine for User {
    type Event = Event;

    fn start(&mut self, now: Instant) {
        self.out.begin();
        self.start_hunt(now);
    }

    fn accept(
        &mut self,
        _: Instant,
        _: Ppid,
        _: TransportAddress,
        _: Option<Identity>,
    ) -> ConnectionId {
        self.out.begin();
        self.out.name_connection()
    }

    fn handle_message(&mut self, now: Instant, from: ConnectionId, message: UserMessage) {
        self.out.begin();
        match receive(&mut self.out, from, &message) {
            Received::Message(Body::HandleResolutionResponse(response)) => {
                self.hunt.handle_answer();
                self.subscriptions.forget_wait();
                self.handle_resolution_response(now, response);
            }
            Received::Message(Body::Error(error)) => {
                self.out.event(Event::RegistrarError(error.error));
            }
            Received::Message(other) => {
                let message = crate::wire::Body::name(&other);
                tracing::debug!(message, "message ignored: not meant for pool users");
            }
            Received::Refused(reason) => {
                self.out.event(Event::Misbehaved(reason));
            }
        }
    }

    fn handle_connection(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        event: ConnectionEvent,
    ) {
        self.out.begin();
        match event {
            ConnectionEvent::Established { peer, identity, .. } => {
                if !self.hunt.is_registrar(&peer, identity.as_ref()) {
                    self.out.event(Event::Denied { peer, identity });
                    self.out.abort(connection);
                    return self.handle_connection_over(now, connection);
                }
                if self.hunt.handle_established(now, connection, &mut self.out).is_none() {
                    return;
                }
                self.home = Some(connection);
                self.is_alone = false;
                self.home_since = Some(now);
                self.timers.set(Timer::Idle, now + IDLE_TIMEOUT);
                self.subscriptions.forget_wait();
                self.out.event(Event::RegistrarFound(peer));
                // Reports are sent before resolutions, so that the registrar's answers can take
                // them into account.
                self.send_reports();
                let waiting: Vec<_> = self.queries.keys().copied().collect();
                for id in waiting {
                    self.send_query(id);
                }
                self.ask_for_all(now);
            }
            ConnectionEvent::Addresses { .. } => {}
            ConnectionEvent::Closed
            | ConnectionEvent::Lost
            | ConnectionEvent::Refused
            | ConnectionEvent::Impossible => self.handle_connection_over(now, connection),
        }
    }

    fn handle_announcement(
        &mut self,
        now: Instant,
        source: TransportAddress,
        message: UserMessage,
    ) {
        self.out.begin();
        self.hunt.handle_announcement(now, source, &message, &mut self.out, self.rng.rng());
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.out.begin();
        self.hunt.handle_timeout(now, &mut self.out, self.rng.rng());
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Request(id) => self.handle_request_timeout(now, id),
                Timer::Subscription(id) => self.handle_subscription_timer(now, id),
                Timer::Idle => self.handle_idle(now),
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output<Event>> {
        self.out.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.hunt.poll_timeout()].into_iter().flatten().min()
    }
}
