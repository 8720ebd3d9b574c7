//! Registration and deregistration (RFC 5352 sections 3.1 and 3.2).

use std::collections::BTreeSet;
use std::time::Instant;

use super::{ElementName, Event, MAX_ELEMENT_SIZE, Membership, Origin, Registrar, RemovalReason};
use crate::handlespace::{ElementKey, Refused};
use crate::protocol::ConnectionId;
use crate::wire::{
    ErrorCause, OperationError, PolicyParameters, PoolElement, PoolHandle, RegistrarId,
    RegistrationLife, TransportAddress, TransportProtocol, UserTransport, asap, quote,
};

impl Registrar {
    pub(super) fn handle_registration(
        &mut self,
        now: Instant,
        from: ConnectionId,
        registration: asap::Registration,
    ) {
        let asap::Registration { pool_handle, pool_element } = registration;
        let identifier = pool_element.identifier;
        let name = ElementName { pool_handle: pool_handle.clone(), identifier };
        let result = self.register(now, from, &pool_handle, pool_element);
        let response = asap::RegistrationResponse {
            reject: result.is_err(),
            pool_handle,
            identifier,
            error: result.as_ref().err().map(|cause| OperationError::from(cause.clone())),
        };
        match result {
            Ok(true) => self.out.event(Event::Registered(name)),
            Ok(false) => self.out.event(Event::Reregistered(name)),
            Err(_) => self.out.event(Event::Refused(name, response.clone())),
        }
        self.respond(from, response);
    }

    /// Adds or renews an element. Whether it is new.
    fn register(
        &mut self,
        now: Instant,
        from: ConnectionId,
        handle: &PoolHandle,
        mut value: PoolElement,
    ) -> Result<bool, ErrorCause> {
        let peer = &self.connections[&from].address;
        Self::validate(peer, &mut value)?;
        value.asap_transport = asap_transport(peer, value.asap_transport.take());
        value.home_registrar = self.config.identifier;
        if quote(&value).len() > MAX_ELEMENT_SIZE {
            return Err(ErrorCause::LackOfResources);
        }
        // To other registrars in the unit that they have.
        let life = self.config.compatibility.lifetime(value.registration_life);
        value.registration_life = life.map_or(RegistrationLife::INFINITE, |life| {
            self.config.compatibility.registration_life(life)
        });
        if self.config.compatibility.check(handle, Some(&value.policy)).is_err() {
            return Err(ErrorCause::InvalidValues(quote(handle)));
        }
        let present = self.handlespace.find(handle, value.identifier);
        let home = present.and_then(|key| self.home_of(key));
        let was_ours = home == Some(self.config.identifier);
        if let Some(key) = present.filter(|key| !self.is_owner(*key, from)) {
            self.doubt_owner(now, key);
            return Err(ErrorCause::NonUniqueIdentifier);
        }
        let has_distance = self.keep_distance(present, &mut value);
        self.handlespace
            .check(handle, &value)
            .map_err(|refused| self.refusal(&refused, &value.policy))?;
        let checked = "checked before";
        let key = match present {
            Some(key) => {
                self.note_change(key, &value);
                self.handlespace.update(key, &value).expect(checked);
                self.rebind(key, from);
                key
            }
            None => {
                let connection = Some(from);
                let reporters = BTreeSet::new();
                let (awaiting_ack, claim, marked) = (false, false, false);
                let came_from = RegistrarId(0);
                let state =
                    Membership { connection, awaiting_ack, claim, marked, came_from, reporters };
                self.subscriptions.note(handle);
                self.handlespace.insert(handle, &value, state).expect(checked)
            }
        };
        self.connections.get_mut(&from).expect("it sent this").elements.insert(key);
        self.handlespace.set_lifetime(key, now, life);
        if !was_ours {
            self.schedule_keep_alive(now, key);
            if let (Some(home), Some(element)) = (home, self.handlespace.get_mut(key)) {
                element.state.came_from = home;
            }
        }
        self.announce_element(key);
        if has_distance {
            self.out.measure(from);
        }
        Ok(present.is_none())
    }

    /// What can be wrong with an element whatever its pool is like.
    ///
    /// Its addresses must be among those that it registers from (RFC 5352 section 2.2.1), so
    /// that nobody can direct pool users to somebody else. Those which are not are left out, as
    /// rsplib's elements need it: they register addresses that their association does not use.
    fn validate(peer: &TransportAddress, value: &mut PoolElement) -> Result<(), ErrorCause> {
        let quoted = quote(&value.user_transport);
        if let UserTransport::Address(user) = &mut value.user_transport {
            user.addresses.retain(|address| peer.addresses.contains(address));
            if user.addresses.is_empty() || user.port == 0 {
                return Err(ErrorCause::InvalidValues(quoted));
            }
        }
        let life = value.registration_life;
        let lasts = life.0 > 0 || life == RegistrationLife::INFINITE;
        if value.identifier.0 == 0 || !lasts {
            return Err(ErrorCause::InvalidValues(quote(value)));
        }
        Ok(())
    }

    /// Only the connection that registered an element may change it, or one from the same address
    /// when that connection is gone or was to another registrar.
    fn is_owner(&self, key: ElementKey, from: ConnectionId) -> bool {
        let element = self.handlespace.get(key).expect("found before");
        let Some(peer) = self.connections.get(&from) else { return false };
        let connection = element.state.connection;
        match connection.and_then(|id| self.connections.get(&id)) {
            Some(_) if connection == Some(from) => true,
            // It connected to us, and is still there for all we know.
            Some(owner) if owner.origin == Origin::Accepted => false,
            Some(owner) => owner.address.shares_address(&peer.address),
            None => {
                let value = element.value();
                let address = value.user_transport.address().or(value.asap_transport.as_ref());
                address.is_some_and(|address| address.shares_address(&peer.address))
            }
        }
    }

    /// Somebody else claims an element. If he is the element itself, which came back before we
    /// noticed that it was gone, its old connection does not answer.
    fn doubt_owner(&mut self, now: Instant, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        let ours = element.home_registrar() == self.config.identifier;
        if ours && !element.state.awaiting_ack {
            self.send_keep_alive(now, key);
        }
    }

    /// The element is reached through `connection` from now on.
    fn rebind(&mut self, key: ElementKey, connection: ConnectionId) {
        let Some(element) = self.handlespace.get_mut(key) else { return };
        element.state.reporters.clear();
        let before = element.state.connection.replace(connection);
        if before != Some(connection) {
            // What was asked on another connection will not be answered.
            element.state.awaiting_ack = false;
            self.detach(key, before);
        }
    }

    /// The error cause of a refusal, and what the RFC wants to be in it (RFC 5354 section
    /// 3.12).
    fn refusal(&self, refused: &Refused, policy: &PolicyParameters) -> ErrorCause {
        let present = |key| self.handlespace.get(key).expect("present in the pool").value();
        match refused {
            Refused::InconsistentPolicy { with } => {
                ErrorCause::InconsistentPolicy(quote(&present(*with).policy))
            }
            Refused::InconsistentTransport { with } => {
                ErrorCause::InconsistentTransport(quote(&present(*with).user_transport))
            }
            Refused::InconsistentDataControl => ErrorCause::InconsistentDataControl,
            Refused::Policy(_) => ErrorCause::InvalidValues(quote(policy)),
            Refused::Full | Refused::TooLong(_) => ErrorCause::LackOfResources,
        }
    }

    pub(super) fn handle_deregistration(
        &mut self,
        from: ConnectionId,
        deregistration: asap::Deregistration,
    ) {
        let asap::Deregistration { pool_handle, identifier } = deregistration;
        // An element that is not there is as good as deregistered (RFC 5352 section 3.2).
        let found = self.handlespace.find(&pool_handle, identifier);
        let owned = found.is_none_or(|key| self.is_owner(key, from));
        let error = (!owned).then(|| ErrorCause::Security.into());
        self.respond(from, asap::DeregistrationResponse { pool_handle, identifier, error });
        if let Some(key) = found.filter(|_| owned) {
            if self.home_of(key) != Some(self.config.identifier) {
                // It is only for its home to say that it is gone.
                self.handlespace.set_home(key, self.config.identifier);
                self.announce_element(key);
            }
            self.remove(key, RemovalReason::Deregistered);
        }
    }

    /// The registration was not renewed: the element is removed and told so (RFC 5352 section
    /// 3.2).
    pub(super) fn handle_expiry(&mut self, key: ElementKey) {
        let Some(ElementName { pool_handle, identifier }) = self.name_of(key) else { return };
        let connection = self.handlespace.get(key).and_then(|element| element.state.connection);
        let connected = |id: &ConnectionId| {
            self.connections.get(id).is_some_and(|client| client.origin != Origin::Connecting)
        };
        if let Some(connection) = connection.filter(connected) {
            let error = None;
            let response = asap::DeregistrationResponse { pool_handle, identifier, error };
            self.respond(connection, response);
        }
        self.remove(key, RemovalReason::Expired);
    }

    /// Sends what is short by construction, or as long as the request that it answers.
    fn respond(&mut self, to: ConnectionId, response: impl Into<asap::Message>) {
        if let Err(error) = self.out.send(to, response) {
            self.complain(to, format!("the answer does not fit: {error}"));
        }
    }
}

/// Where the element's ASAP endpoint is. Over SCTP that is where it registers from. Over TCP
/// the port is ephemeral, so the element has to name one; its address is not for it to choose.
fn asap_transport(
    peer: &TransportAddress,
    named: Option<TransportAddress>,
) -> Option<TransportAddress> {
    if peer.protocol != TransportProtocol::Tcp {
        return Some(peer.clone());
    }
    named
        .filter(|named| named.protocol == peer.protocol && named.port != 0)
        .map(|named| TransportAddress { port: named.port, ..peer.clone() })
}
