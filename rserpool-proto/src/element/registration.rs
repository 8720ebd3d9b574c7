//! Joining and leaving the pool (RFC 5352 sections 3.1 and 3.2).

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::{Departure, Element, Event, RETRY_DELAY, State, Timer};
use crate::ConnectionId;
use crate::wire::{
    ErrorCause, OperationError, PoolElement, PoolElementId, RegistrarId, TransportAddress,
    UserTransport, asap,
};

/// The number of times that an identifier is drawn anew because another element of the pool uses
/// it. Not from the RFCs.
const MAX_IDENTIFIERS: u32 = 8;

/// The number of times that the element tries its identifier again after a registrar refused it
/// because another element seems to use it. Not from the RFCs. The other element may be this
/// element's own earlier registration, if the registrar has not yet noticed that the element was
/// away.
const MAX_REFUSALS: u32 = 3;

impl Element {
    /// Sends the deregistration. Without a connection, it is sent once the next one is established.
    pub(super) fn send_deregistration(&mut self) {
        let Some(home) = &self.home else { return };
        let deregistration = asap::Deregistration {
            pool_handle: self.config.pool_handle.clone(),
            identifier: self.identifier,
        };
        self.out.send(home.connection, deregistration);
    }

    pub(super) fn leave(&mut self, departure: Departure) {
        self.state = State::Left;
        let all = [
            Timer::Registration,
            Timer::Deregistration,
            Timer::Reregistration,
            Timer::Load,
            Timer::Addresses,
        ];
        for timer in all {
            self.timers.cancel(timer);
        }
        self.hunt.stop(&mut self.out);
        if let Some(home) = self.home.take() {
            self.forget(home.connection);
            self.out.close(home.connection);
        }
        self.out.event(Event::Deregistered(departure));
    }

    /// Sends the registration, and starts T2-registration.
    pub(super) fn register(&mut self, now: Instant) {
        let Some(home) = &self.home else { return self.start_hunt(now) };
        let registration = asap::Registration {
            pool_handle: self.config.pool_handle.clone(),
            pool_element: PoolElement {
                identifier: self.identifier,
                home_registrar: RegistrarId(0),
                registration_life: self
                    .config
                    .hunt
                    .profile()
                    .registration_life(self.config.lifetime),
                user_transport: fill_in(&self.config.user_transport, &home.local),
                policy: self.policy.clone(),
                asap_transport: self
                    .config
                    .asap_transport
                    .as_ref()
                    .map(|asap| TransportAddress { port: asap.port, ..home.local.clone() }),
            },
        };
        match self.out.try_send(home.connection, registration) {
            Ok(()) => {
                self.out.ask_addresses(home.connection);
                self.attempts += 1;
                self.unanswered = self.unanswered.saturating_add(1);
                self.timers.cancel(Timer::Reregistration);
                self.timers.set(Timer::Registration, now + self.config.t2_registration());
            }
            Err(_) => {
                self.state = State::Rejected;
                self.out.event(Event::Rejected(ErrorCause::Unspecified.into()));
            }
        }
    }

    pub(super) fn handle_registration_response(
        &mut self,
        now: Instant,
        from: ConnectionId,
        response: asap::RegistrationResponse,
    ) {
        let ours = response.pool_handle == self.config.pool_handle
            && response.identifier == self.identifier
            && matches!(self.state, State::Joining | State::Registered);
        let Some(home) = self.home.as_ref().filter(|home| ours && home.connection == from) else {
            return;
        };
        self.hunt.handle_answer();
        self.timers.cancel(Timer::Registration);
        self.attempts = 0;
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some(error) = response.error.as_ref().filter(|_| !response.reject) {
            self.out.event(Event::AddressesLeftOut(error.clone()));
        }
        let error = response.error.unwrap_or_default();
        if !response.reject {
            let registrar = home.peer.clone();
            self.was_member = true;
            self.identifiers_drawn = 0;
            self.refusals = 0;
            self.retry_delay = RETRY_DELAY;
            if self.state == State::Joining {
                self.state = State::Registered;
                self.out.event(Event::Registered { identifier: self.identifier, registrar });
            }
            self.timers.set(Timer::Reregistration, now + reregistration(self.config.lifetime));
        } else {
            self.handle_refusal(now, error);
        }
    }

    fn handle_refusal(&mut self, now: Instant, error: OperationError) {
        let taken = error.causes.contains(&ErrorCause::NonUniqueIdentifier);
        let chosen = self.config.identifier.is_some();
        if taken && (chosen || self.was_member) && self.refusals < MAX_REFUSALS {
            return self.register_later(now);
        }
        if error.causes.contains(&ErrorCause::LackOfResources) {
            // The element tries again, since the registrar may have the resources at any time.
            self.out.event(Event::Refused(error));
            return self.register_later(now);
        }
        if taken && !chosen && self.identifiers_drawn < MAX_IDENTIFIERS {
            self.identifiers_drawn += 1;
            self.identifier = draw_identifier(&mut self.rng);
            return self.register(now);
        }
        self.out.event(Event::Rejected(error));
        self.register_later(now);
    }

    fn register_later(&mut self, now: Instant) {
        self.refusals += 1;
        self.state = State::Joining;
        self.timers.set(Timer::Reregistration, now + self.retry_delay);
        self.retry_delay = (self.retry_delay * 2).min(self.config.hunt.profile().max_retry_delay());
    }

    pub(super) fn handle_deregistration_response(
        &mut self,
        now: Instant,
        from: ConnectionId,
        response: asap::DeregistrationResponse,
    ) {
        let ours = response.pool_handle == self.config.pool_handle
            && response.identifier == self.identifier;
        if !ours || !self.is_home(from) {
            return;
        }
        match (self.state, response.error) {
            (State::Leaving, None) => self.leave(Departure::Confirmed),
            (State::Leaving, Some(error)) => {
                self.out.event(Event::Refused(error));
                self.leave(Departure::Unconfirmed);
            }
            (State::Registered, _) => {
                self.state = State::Joining;
                self.out.event(Event::Expired);
                self.register(now);
            }
            (State::Joining | State::Rejected | State::Left, _) => {}
        }
    }
}

/// Draws an identifier that is not zero, since zero means "none" to registrars.
pub(super) fn draw_identifier(rng: &mut StdRng) -> PoolElementId {
    PoolElementId(rng.next_u32().max(1))
}

/// Returns T4-reregistration: the time until the element renews a registration of `lifetime`.
fn reregistration(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(Duration::from_secs(20)).max(lifetime / 3).min(Duration::from_secs(600))
}

/// Returns the user transport. If it has no IP addresses of its own, they are those of `local`, the
/// local address of the connection to the registrar.
fn fill_in(transport: &UserTransport, local: &TransportAddress) -> UserTransport {
    let mut transport = transport.clone();
    if let UserTransport::Address(address) = &mut transport
        && address.addresses.iter().all(std::net::IpAddr::is_unspecified)
    {
        address.addresses = local.addresses.clone();
    }
    transport
}
