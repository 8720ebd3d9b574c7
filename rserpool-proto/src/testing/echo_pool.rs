//! The pool "EchoPool" with its registrars, elements and users.

use std::time::Duration;

use crate::element::ElementConfig;
use crate::registrar::RegistrarConfig;
use crate::user::{self, ResolveError, ResolveOptions, UserConfig};
use crate::wire::{PoolElementId, PoolHandle, RegistrarId, TransportAddress};
use crate::{Element, HuntConfig, Registrar, User};

use crate::testing::world::{Event, NodeId, World, address};

/// Returns the handle of the pool.
#[must_use]
pub fn handle() -> PoolHandle {
    "EchoPool".parse().expect("a pool handle")
}

/// Returns the service address of the elements, which has no IP addresses: they register the
/// addresses that they connect from.
#[must_use]
pub fn service() -> TransportAddress {
    TransportAddress { addresses: Default::default(), ..TransportAddress::tcp(([0; 4], 7).into()) }
}

/// Creates a registrar with the defaults.
#[must_use]
pub fn new_registrar() -> Registrar {
    let config = RegistrarConfig::default().identifier(RegistrarId(1));
    Registrar::new(config.ready_after(Duration::ZERO), 1)
}

/// Returns a configuration to look for these registrars.
#[must_use]
pub fn hunt(registrars: &[NodeId]) -> HuntConfig {
    HuntConfig::new(registrars.iter().map(|host| address(*host)))
}

/// Returns the configuration of an element that looks for these registrars.
#[must_use]
pub fn element_config(registrars: &[NodeId]) -> ElementConfig {
    ElementConfig::new(handle(), service(), hunt(registrars)).asap_transport(address(0))
}

/// Creates an element that looks for the first registrar.
#[must_use]
pub fn new_element(seed: u64) -> Element {
    Element::new(element_config(&[0]), seed)
}

/// Creates a user that looks for these registrars.
#[must_use]
pub fn new_user(registrars: &[NodeId]) -> User {
    User::new(UserConfig::new(hunt(registrars)), 5)
}

/// Resolves the pool without advancing the virtual time, and returns the identifiers of the
/// elements in the order of the answer.
///
/// # Errors
///
/// Returns the error that the user reports.
pub fn resolve(world: &mut World, user: NodeId) -> Result<Vec<PoolElementId>, ResolveError> {
    resolve_with(world, user, &ResolveOptions::default())
}

/// Resolves the pool with these options, and returns the identifiers of the elements in order.
///
/// # Errors
///
/// Returns the error that the user reports.
pub fn resolve_with(
    world: &mut World,
    user: NodeId,
    options: &ResolveOptions,
) -> Result<Vec<PoolElementId>, ResolveError> {
    world.take_events(user);
    world.with_user(user, |user, now| user.resolve(now, handle(), options));
    world.run(Duration::ZERO);
    let events = world.take_events(user);
    let resolved = events.into_iter().find_map(|event| match event {
        Event::User(user::Event::Resolved { result, .. }) => Some(result),
        _ => None,
    });
    Ok(resolved.expect("an answer")?.iter().map(|element| element.identifier).collect())
}
