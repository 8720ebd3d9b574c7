//! Distances of elements, which the registrar measures for the policies with a delay penalty factor
//! (extensions of rsplib).

use std::time::Duration;

use super::Registrar;
use crate::ConnectionId;
use crate::handlespace::ElementKey;
use crate::wire::{PolicyParameters, PolicyValue, PoolElement};

impl Registrar {
    /// Replaces the distance in a registration by the last one that was measured for the element,
    /// if any, until the distance is measured again. Returns whether the element's policy has a
    /// distance.
    pub(super) fn keep_distance(
        &self,
        present: Option<ElementKey>,
        value: &mut PoolElement,
    ) -> bool {
        let Some(said) = value.policy.value(PolicyValue::Distance) else { return false };
        let known = present
            .and_then(|key| self.handlespace.get(key))
            .and_then(|element| element.value().policy.value(PolicyValue::Distance));
        if let Some(policy) = value.policy.with_value(PolicyValue::Distance, known.unwrap_or(said))
        {
            value.policy = policy;
        }
        true
    }

    /// Handles the round-trip time of a connection. The distance of the elements that registered
    /// over the connection is half of the round-trip time, in milliseconds, rounded to a multiple
    /// of the configured step.
    pub(super) fn take_round_trip(&mut self, connection: ConnectionId, round_trip: Duration) {
        let distance = rounded(round_trip / 2, self.config.distance_step);
        let Some(client) = self.connections.get(&connection) else { return };
        for key in client.elements.clone() {
            let Some(element) = self.handlespace.get(key) else { continue };
            if element.home_registrar() != self.config.identifier {
                continue;
            }
            let mut value = element.value();
            if let Some(policy) = changed(&value.policy, distance) {
                value.policy = policy;
                if let Ok(true) = self.handlespace.update(key, &value)
                    && let Some(handle) = self.handlespace.handle_of(key)
                {
                    self.subscriptions.note(handle);
                    self.announce_element(key);
                }
            }
        }
    }
}

/// Returns the policy with `distance`, or `None` if the policy has this distance already or has no
/// distance at all.
fn changed(policy: &PolicyParameters, distance: u32) -> Option<PolicyParameters> {
    policy.value(PolicyValue::Distance).filter(|known| *known != distance)?;
    policy.with_value(PolicyValue::Distance, distance)
}

/// Returns the distance in milliseconds, rounded to the nearest multiple of `step`.
fn rounded(distance: Duration, step: Duration) -> u32 {
    let (distance, step) = (distance.as_micros(), step.as_micros().max(1));
    let steps = (distance + step / 2) / step;
    u32::try_from(steps * step / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_multiples_of_the_step() {
        let rounded = |ms| rounded(Duration::from_millis(ms), Duration::from_millis(50));
        assert_eq!([0, 24, 25, 74, 75, 120].map(rounded), [0, 0, 50, 50, 100, 100]);
    }
}
