//! The pool element parameter (RFC 5354 section 3.10).

use super::{Parameter, ParameterType, PolicyParameters, TransportAddress, UserTransport};
use crate::wire::{
    DecodeError, PoolElementId, Reader, RegistrarId, RegistrationLife, Writer, placeholder,
};

/// A pool element, as in registrations and in the messages of registrars.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PoolElement {
    /// The element's identifier in the pool.
    pub identifier: PoolElementId,
    /// The element's home registrar; zero in a registration.
    pub home_registrar: RegistrarId,
    /// The time for which the registration is valid.
    pub registration_life: RegistrationLife,
    /// The address at which the element serves pool users.
    pub user_transport: UserTransport,
    /// The pool's policy with this element's values.
    pub policy: PolicyParameters,
    /// The address of the element's ASAP endpoint, for registrars.
    pub asap_transport: Option<TransportAddress>,
}

placeholder!(PoolElement {
    identifier,
    home_registrar,
    registration_life,
    user_transport,
    policy,
    asap_transport
});

impl Parameter for PoolElement {
    const NAME: &'static str = "Pool Element";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::PoolElement
    }

    fn parameter_type(&self) -> ParameterType {
        ParameterType::PoolElement
    }

    #[inline]
    fn decode(&mut self, _: ParameterType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.identifier = PoolElementId(reader.u32()?);
        self.home_registrar = RegistrarId(reader.u32()?);
        self.registration_life = RegistrationLife(i32::from_be_bytes(reader.array()?));
        reader.required(&mut self.user_transport)?;
        reader.required(&mut self.policy)?;
        reader.optional(&mut self.asap_transport)?;
        reader.no_more_parameters()
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        let [identifier, home] = [self.identifier.0, self.home_registrar.0].map(u32::to_be_bytes);
        let life = self.registration_life.0.to_be_bytes();
        writer.slice([identifier, home, life].as_flattened());
        writer.parameter(&self.user_transport);
        writer.parameter(&self.policy);
        writer.parameters(&self.asap_transport);
    }
}
