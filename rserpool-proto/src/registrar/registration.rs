//! Registration and deregistration (RFC 5352 sections 3.1 and 3.2).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::keep_alive::REPORT_PAUSE;
use super::membership::{Charge, Custody, KeepAlive, Membership, Origin, Watch};
use super::shares::Limit;
use super::{ElementName, Event, Registrar, RemovalReason, Timer};
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::handlespace::Scope;
use crate::handlespace::{Element, ElementKey, Refused};
use crate::wire::{
    EncodedElement, ErrorCause, OperationError, PolicyParameters, PoolElement, PoolElementId,
    PoolHandle, RegistrationLife, TransportAddress, TransportProtocol, UserTransport, asap, quote,
};

/// The time within which an element has to answer over its own connection after its host registered
/// it over another one. Without an answer, the new registration is accepted.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// A claim: a registration that an element's host sent over another connection, while the
/// connection over which the element registered still counts as open. This registrar sends a
/// keep-alive over the old connection. If the element answers it, the claim is refused; otherwise
/// the claim is accepted.
#[derive(Debug)]
pub(super) struct Claimant {
    pub(super) from: ConnectionId,
    registration: asap::Registration,
}

/// The right of a sender to change an element.
enum Standing {
    Owner,
    /// A connection from the host of the element, while the element's own connection may or may not
    /// still be open.
    Claimant,
    Stranger,
}

impl Registrar {
    pub(super) fn handle_registration(
        &mut self,
        now: Instant,
        from: ConnectionId,
        registration: asap::Registration,
    ) {
        let Some(client) = self.connections.get(&from) else { return };
        let (host, peer) = (client.host, client.address.clone());
        let (handle, identifier) =
            (&registration.pool_handle, registration.pool_element.identifier);
        if !self.allows(now, host, Limit::Registrations) {
            return self.refuse(from, handle, identifier, ErrorCause::LackOfResources);
        }
        if !self.permits(from, AccessRole::Element, handle) {
            return self.refuse(from, handle, identifier, ErrorCause::Security);
        }
        let present = self.handlespace.find(handle, identifier);
        match present.map(|key| (key, self.standing(key, from))) {
            None => {}
            // A claim (registration over another connection) that still waits is older than this
            // registration.
            Some((key, Standing::Owner)) => self.refuse_claimant(key),
            Some((key, Standing::Claimant))
                if self.claimants.get(&key).is_none_or(|claimant| claimant.from == from) =>
            {
                if EncodedElement::new(handle, &registration.pool_element).is_err() {
                    let cause = ErrorCause::InvalidValues(quote(&registration.pool_element));
                    return self.refuse(from, handle, identifier, cause);
                }
                // A later claim replaces one that waits.
                let waits = self.claimants.insert(key, Claimant { from, registration }).is_some();
                if !waits {
                    self.timers.set(Timer::Claimant(key), now + CLAIM_TIMEOUT);
                    self.send_keep_alive(now, key);
                }
                return;
            }
            Some((key, Standing::Claimant | Standing::Stranger)) => {
                self.refuse(from, handle, identifier, ErrorCause::NonUniqueIdentifier);
                // If the sender is the element itself, which restarted before this registrar
                // noticed the failure, its old connection does not answer.
                return self.ask_owner(now, key);
            }
        }
        self.register(now, from, &peer, registration, present);
    }

    /// Asks an element of this registrar whether it is alive, at most once a second.
    pub(super) fn ask_owner(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let Some(custody) = element.state.custody_mut() else { return };
        if custody.asked_for_report.is_none_or(|asked| now >= asked + REPORT_PAUSE) {
            custody.asked_for_report = Some(now);
            self.send_keep_alive(now, key);
        }
    }

    /// Adds or renews an element that `from` may change, and answers.
    fn register(
        &mut self,
        now: Instant,
        from: ConnectionId,
        peer: &TransportAddress,
        registration: asap::Registration,
        present: Option<ElementKey>,
    ) {
        let asap::Registration { pool_handle, pool_element } = registration;
        let identifier = pool_element.identifier;
        let name = ElementName { pool_handle: pool_handle.clone(), identifier };
        match self.admit(now, from, peer, &pool_handle, pool_element, present) {
            Ok(left_out) => {
                // The response tells the element which of its addresses this registrar ignored (RFC
                // 5352 section 2.2.3).
                let told = self.config.compatibility.tells_left_out_addresses(peer.protocol);
                let error = left_out.filter(|_| told).map(OperationError::from);
                self.out.send(
                    from,
                    asap::RegistrationResponse { reject: false, pool_handle, identifier, error },
                );
                self.answer_deferred(now, &name.pool_handle);
                self.out.event(match present {
                    None => Event::Registered(name, peer.clone()),
                    Some(_) => Event::Reregistered(name),
                });
            }
            Err(cause) => self.refuse(from, &pool_handle, identifier, cause),
        }
    }

    pub(super) fn refuse(
        &mut self,
        to: ConnectionId,
        handle: &PoolHandle,
        identifier: PoolElementId,
        cause: ErrorCause,
    ) {
        let response = asap::RegistrationResponse {
            reject: true,
            pool_handle: handle.clone(),
            identifier,
            error: Some(OperationError::from(cause)),
        };
        let name = ElementName { pool_handle: handle.clone(), identifier };
        self.out.event(Event::Refused(name, response.clone()));
        self.out.send(to, response);
    }

    /// Adds an element to the handlespace, or updates its values. Returns an error cause that names
    /// the addresses that were ignored, if any.
    fn admit(
        &mut self,
        now: Instant,
        from: ConnectionId,
        peer: &TransportAddress,
        handle: &PoolHandle,
        mut value: PoolElement,
        present: Option<ElementKey>,
    ) -> Result<Option<ErrorCause>, ErrorCause> {
        let left_out = Self::validate(peer, &mut value)?;
        value.asap_transport = asap_transport(peer, value.asap_transport.take());
        value.home_registrar = self.config.identifier;
        // The lifetime is kept in the unit that other registrars expect.
        let life = self.config.compatibility.lifetime(value.registration_life);
        value.registration_life = life.map_or(RegistrationLife::INFINITE, |life| {
            self.config.compatibility.told_registration_life(life)
        });
        if self.config.compatibility.check(handle, Some(&value.policy)).is_err() {
            return Err(ErrorCause::InvalidValues(quote(handle)));
        }
        let has_distance = self.keep_distance(present, &mut value);
        let home = present.and_then(|key| self.home_of(key));
        let was_ours = home == Some(self.config.identifier);
        let host = peer.host();
        let owner = self.connections.get(&from).and_then(|client| client.party.clone());
        if !self.has_room(host, present, handle, &value)
            || !self.owns_fewer(now, from, present, handle)
        {
            return Err(ErrorCause::LackOfResources);
        }
        let key = match present {
            Some(key) => {
                let differs = self
                    .handlespace
                    .update(key, &value)
                    .map_err(|refused| self.refusal(&refused, &value.policy))?;
                if differs {
                    self.subscriptions.note(handle);
                }
                self.recharge(key, host, owner);
                self.rebind(now, key, from);
                key
            }
            None => {
                let state = Membership::home(from, Charge::default());
                let key = self
                    .handlespace
                    .insert(handle, &value, state)
                    .map_err(|refused| self.refusal(&refused, &value.policy))?;
                self.subscriptions.note(handle);
                self.recharge(key, host, owner);
                key
            }
        };
        if let Some(client) = self.connections.get_mut(&from) {
            client.elements.insert(key);
        }
        self.handlespace.set_lifetime(key, now, life);
        if !was_ours {
            if let Some(element) = self.handlespace.get_mut(key) {
                let came_from = home;
                element.state.watch = Watch::Home(Custody { came_from, ..Custody::default() });
            }
            self.schedule_keep_alive(now, key);
        }
        if let Some(custody) =
            self.handlespace.get_mut(key).and_then(|element| element.state.custody_mut())
        {
            custody.registered = Some(now);
        }
        if self.note_scope(key, &value) && Scope::of(self.config.reached_at()) == Scope::Global {
            let name = ElementName { pool_handle: handle.clone(), identifier: value.identifier };
            self.out.event(Event::Near(name, peer.clone()));
        }
        self.announce_element(key);
        if has_distance {
            self.out.measure(from);
        }
        Ok(left_out)
    }

    /// Checks an element independently of the state of its pool.
    ///
    /// The element's addresses must be among those that it registers from (RFC 5352 section 2.2.1),
    /// so that nobody can direct pool users to another host. Other addresses are removed and do not
    /// fail the check, since rsplib's elements register addresses that their association does not
    /// use. In that case the original user transport is returned, as an error cause.
    fn validate(
        peer: &TransportAddress,
        value: &mut PoolElement,
    ) -> Result<Option<ErrorCause>, ErrorCause> {
        let quoted = quote(&value.user_transport);
        let mut left_out = false;
        if let UserTransport::Address(user) = &mut value.user_transport {
            let named = user.addresses.len();
            user.addresses.retain(|address| peer.addresses.contains(address));
            let far = |address: &IpAddr| Scope::of(*address) == Scope::Global;
            if user.addresses.iter().any(far) {
                user.addresses.retain(|address| far(address));
            }
            if user.addresses.is_empty() || user.port == 0 {
                return Err(ErrorCause::InvalidValues(quoted));
            }
            left_out = user.addresses.len() < named;
        }
        let life = value.registration_life;
        let lasts = life.0 > 0 || life == RegistrationLife::INFINITE;
        if value.identifier.0 == 0 || !lasts {
            return Err(ErrorCause::InvalidValues(quote(value)));
        }
        Ok(left_out.then_some(ErrorCause::InvalidValues(quoted)))
    }

    /// Returns the right of a connection to change an element (RFC 5352 section 3.1). Only the
    /// connection that registered the element may change it, or another one from the same address
    /// and with the same identity if the first is closed, was to another registrar, or does not
    /// answer.
    fn standing(&self, key: ElementKey, from: ConnectionId) -> Standing {
        let (Some(element), Some(client)) =
            (self.handlespace.get(key), self.connections.get(&from))
        else {
            return Standing::Stranger;
        };
        let connection = element.state.connection;
        if connection == Some(from) {
            return Standing::Owner;
        }
        // Of an element that another registrar announced, the identity is not known.
        let owner = &element.state.charge.owner;
        if owner.is_some() && *owner != client.party {
            return Standing::Stranger;
        }
        match connection.and_then(|id| self.connections.get(&id)) {
            // The element made its connection to this registrar, and the connection still counts as
            // open.
            Some(owner) if owner.origin == Origin::Accepted => {
                match owner.address.shares_address(&client.address) {
                    true => Standing::Claimant,
                    false => Standing::Stranger,
                }
            }
            Some(owner) if owner.address.shares_address(&client.address) => Standing::Owner,
            Some(_) => Standing::Stranger,
            None => {
                let value = element.value();
                let address = value.user_transport.address().or(value.asap_transport.as_ref());
                let same = address.is_some_and(|its| its.shares_address(&client.address));
                if same { Standing::Owner } else { Standing::Stranger }
            }
        }
    }

    /// Accepts a waiting claim (registration over another connection) on an element whose own
    /// connection is closed or silent. Returns whether there was one and it was accepted.
    pub(super) fn admit_claimant(&mut self, now: Instant, key: ElementKey) -> bool {
        let Some(Claimant { from, registration }) = self.claimants.remove(&key) else {
            return false;
        };
        self.timers.cancel(Timer::Claimant(key));
        let Some(peer) = self.connections.get(&from).map(|client| client.address.clone()) else {
            return false;
        };
        self.register(now, from, &peer, registration, Some(key));
        self.handlespace.get(key).is_some_and(|element| element.state.connection == Some(from))
    }

    /// Refuses a waiting claim (registration over another connection) on an element, since the
    /// element answered over its own connection.
    pub(super) fn refuse_claimant(&mut self, key: ElementKey) {
        let Some(Claimant { from, registration }) = self.claimants.remove(&key) else { return };
        self.timers.cancel(Timer::Claimant(key));
        if self.connections.contains_key(&from) {
            let identifier = registration.pool_element.identifier;
            let cause = ErrorCause::NonUniqueIdentifier;
            self.refuse(from, &registration.pool_handle, identifier, cause);
        }
    }

    /// Makes `connection` the one over which this registrar reaches the element.
    fn rebind(&mut self, now: Instant, key: ElementKey, connection: ConnectionId) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let before = element.state.connection.replace(connection);
        if let Some(custody) = element.state.custody_mut() {
            custody.reporters.clear();
            if before != Some(connection) {
                // A keep-alive that was sent over the old connection will not be answered.
                custody.keep_alive = KeepAlive::Idle;
            }
        }
        if before != Some(connection) {
            self.dials.forget(key);
            self.schedule_keep_alive(now, key);
            self.detach(key, before);
        }
    }

    /// Returns the error cause of a refusal, with the information that RFC 5354 section 3.12
    /// requires.
    fn refusal(&self, refused: &Refused, policy: &PolicyParameters) -> ErrorCause {
        let present = |key| self.handlespace.get(key).map(Element::value);
        match refused {
            Refused::InconsistentPolicy { with } => ErrorCause::InconsistentPolicy(
                present(*with).map(|present| quote(&present.policy)).unwrap_or_default(),
            ),
            Refused::InconsistentTransport { with } => ErrorCause::InconsistentTransport(
                present(*with).map(|present| quote(&present.user_transport)).unwrap_or_default(),
            ),
            Refused::InconsistentDataControl => ErrorCause::InconsistentDataControl,
            Refused::Policy(_) => ErrorCause::InvalidValues(quote(policy)),
            Refused::Full => ErrorCause::LackOfResources,
            Refused::TooLarge(_) | Refused::NoIdentifier => {
                ErrorCause::InvalidValues(quote(policy))
            }
        }
    }

    pub(super) fn handle_deregistration(
        &mut self,
        from: ConnectionId,
        deregistration: asap::Deregistration,
    ) {
        let asap::Deregistration { pool_handle, identifier } = deregistration;
        if !self.connections.contains_key(&from) {
            return;
        }
        let granted = self.permits(from, AccessRole::Element, &pool_handle);
        // An unknown element counts as deregistered (RFC 5352 section 3.2).
        let found = self.handlespace.find(&pool_handle, identifier);
        let owned =
            granted && found.is_none_or(|key| matches!(self.standing(key, from), Standing::Owner));
        let error = (!owned).then(|| ErrorCause::Security.into());
        self.out.send(from, asap::DeregistrationResponse { pool_handle, identifier, error });
        if let Some(key) = found.filter(|_| owned) {
            if self.home_of(key) != Some(self.config.identifier) {
                // Only the home registrar of an element may announce its removal.
                self.handlespace.set_home(key, self.config.identifier);
                self.announce_element(key);
            }
            self.remove(key, RemovalReason::Deregistered);
        }
    }
}

/// Returns the element's ASAP endpoint. Over SCTP, that is the source of the registration. Over TCP
/// the source port is ephemeral, so the element names its port, and the addresses are those of the
/// connection.
fn asap_transport(
    peer: &TransportAddress,
    named: Option<TransportAddress>,
) -> Option<TransportAddress> {
    if peer.protocol == TransportProtocol::Sctp {
        return Some(peer.clone());
    }
    named
        .filter(|named| named.protocol == peer.protocol && named.port != 0)
        .map(|named| TransportAddress { port: named.port, ..peer.clone() })
}
