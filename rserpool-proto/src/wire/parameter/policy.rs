//! The pool member selection policy parameter (RFC 5354 section 3.8, RFC 5356).

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Parameter, ParameterType};
use crate::wire::{DecodeError, Reader, Writer, placeholder};

/// The number of a selection policy (RFC 5356).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyType(pub u32);

/// The meaning of a value of a policy. `Display` writes the name that the value has in JSON and in
/// policy expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyValue {
    /// The weight: the share of the selections, relative to the other elements.
    Weight,
    /// The priority; the highest is selected.
    Priority,
    /// The load, from 0 (idle) to `u32::MAX` (fully used).
    Load,
    /// The load that each selection adds until the element registers again.
    LoadDegradation,
    /// The delay penalty factor: the part of the weight that a millisecond of distance subtracts;
    /// rsplib's extension.
    WeightDpf,
    /// The delay penalty factor: the load that a millisecond of distance adds; rsplib's extension.
    LoadDpf,
    /// The distance between the element and its home registrar in milliseconds, which the registrar
    /// measures; rsplib's extension.
    Distance,
}

impl fmt::Display for PolicyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weight => "weight",
            Self::Priority => "priority",
            Self::Load => "load",
            Self::LoadDegradation => "load_degradation",
            Self::WeightDpf => "weight_dpf",
            Self::LoadDpf => "load_dpf",
            Self::Distance => "distance",
        })
    }
}

macro_rules! policies {
    ($($(#[$meta:meta])* $constant:ident = $number:literal, $name:literal, [$($value:ident),*];)*) => {
        impl PolicyType {
            $($(#[$meta])* pub const $constant: Self = Self($number);)*

            /// Returns the name of the policy; `None` if the policy is unknown.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$constant => Some($name),)*
                    _ => None,
                }
            }

            /// Returns the meanings of the policy's values, in the order of their words on the
            /// wire. Returns `None` if the policy is unknown.
            #[must_use]
            pub fn values(self) -> Option<&'static [PolicyValue]> {
                match self {
                    $(Self::$constant => Some(&[$(PolicyValue::$value),*]),)*
                    _ => None,
                }
            }

            /// All known policies.
            pub const KNOWN: &[Self] = &[$(Self::$constant),*];
        }
    };
}

policies! {
    /// Round Robin (RFC 5356 section 4.1), which every implementation supports.
    ROUND_ROBIN = 0x0000_0001, "RoundRobin", [];
    /// Weighted Round Robin (RFC 5356 section 4.2).
    WEIGHTED_ROUND_ROBIN = 0x0000_0002, "WeightedRoundRobin", [Weight];
    /// Random (RFC 5356 section 4.3).
    RANDOM = 0x0000_0003, "Random", [];
    /// Weighted Random (RFC 5356 section 4.4).
    WEIGHTED_RANDOM = 0x0000_0004, "WeightedRandom", [Weight];
    /// Priority (RFC 5356 section 4.5).
    PRIORITY = 0x0000_0005, "Priority", [Priority];
    /// Least Used (RFC 5356 section 5.1).
    LEAST_USED = 0x4000_0001, "LeastUsed", [Load];
    /// Least Used with Degradation (RFC 5356 section 5.2).
    LEAST_USED_DEGRADATION = 0x4000_0002, "LeastUsedDegradation", [Load, LoadDegradation];
    /// Priority Least Used (RFC 5356 section 5.3).
    PRIORITY_LEAST_USED = 0x4000_0003, "PriorityLeastUsed", [Load, LoadDegradation];
    /// Randomized Least Used (RFC 5356 section 5.4).
    RANDOMIZED_LEAST_USED = 0x4000_0004, "RandomizedLeastUsed", [Load];
    /// Randomized Priority Least Used; rsplib's extension.
    RANDOMIZED_PRIORITY_LEAST_USED = 0xb000_1001, "RandomizedPriorityLeastUsed", [Load, LoadDegradation];
    /// Randomized Least Used with Degradation; rsplib's extension.
    RANDOMIZED_LEAST_USED_DEGRADATION = 0xb000_1002, "RandomizedLeastUsedDegradation", [Load, LoadDegradation];
    /// Priority Least Used with Degradation; rsplib's extension.
    PRIORITY_LEAST_USED_DEGRADATION = 0xb000_1003, "PriorityLeastUsedDegradation", [Load, LoadDegradation];
    /// Randomized Priority Least Used with Degradation; rsplib's extension.
    RANDOMIZED_PRIORITY_LEAST_USED_DEGRADATION = 0xb000_1004, "RandomizedPriorityLeastUsedDegradation", [Load, LoadDegradation];
    /// Weighted Random with a delay penalty factor; rsplib's extension.
    WEIGHTED_RANDOM_DPF = 0xb000_2001, "WeightedRandomDPF", [Weight, WeightDpf, Distance];
    /// Least Used with a delay penalty factor; rsplib's extension.
    LEAST_USED_DPF = 0xb000_2002, "LeastUsedDPF", [Load, LoadDpf, Distance];
    /// Least Used with Degradation and a delay penalty factor; rsplib's extension.
    LEAST_USED_DEGRADATION_DPF = 0xb000_2003, "LeastUsedDegradationDPF", [Load, LoadDegradation, LoadDpf, Distance];
}

impl PolicyType {
    fn index_of(self, value: PolicyValue) -> Option<usize> {
        self.values()?.iter().position(|its| *its == value)
    }
}

impl fmt::Display for PolicyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.0),
        }
    }
}

impl fmt::Debug for PolicyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyType({self})")
    }
}

/// The number of a policy, and the values of one element under it. The values are 32-bit words in
/// all policies that RFC 5356 and rsplib define.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PolicyParameters {
    policy_type: PolicyType,
    words: SmallVec<[u32; 4]>,
    /// The bytes at the end that do not fill a word; `tail_length` is their number. Always empty in
    /// the known policies.
    tail: [u8; 3],
    tail_length: u8,
}

impl PolicyParameters {
    /// Creates the parameters `words` of the policy `policy_type`.
    #[must_use]
    pub fn new(policy_type: PolicyType, words: &[u32]) -> Self {
        Self { policy_type, words: SmallVec::from_slice(words), tail: [0; 3], tail_length: 0 }
    }

    /// Creates the parameters of a policy whose data are not 32-bit words.
    #[must_use]
    pub fn from_bytes(policy_type: PolicyType, data: &[u8]) -> Self {
        let mut parameters = Self::new(policy_type, &[]);
        parameters.set_bytes(data);
        parameters
    }

    #[inline(always)]
    fn set_bytes(&mut self, data: &[u8]) {
        let (words, rest) = data.as_chunks::<4>();
        for word in words {
            self.words.push(u32::from_be_bytes(*word));
        }
        for (byte, value) in self.tail.iter_mut().zip(rest) {
            *byte = *value;
        }
        self.tail_length = rest.len() as u8;
    }

    /// Returns a copy with another load, from 0.0 (idle) to 1.0 (fully used); `None` if the policy
    /// is unknown or has no load.
    #[must_use]
    pub fn with_load(&self, load: f64) -> Option<Self> {
        self.with_value(
            PolicyValue::Load,
            (load.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u32,
        )
    }

    /// Returns the word whose meaning is `value`; `None` if the policy is unknown or has no such
    /// value.
    #[must_use]
    pub fn value(&self, value: PolicyValue) -> Option<u32> {
        self.words.get(self.policy_type.index_of(value)?).copied()
    }

    /// Returns a copy in which the word with the meaning `value` is `word`; `None` if the policy is
    /// unknown or has no such value.
    #[must_use]
    pub fn with_value(&self, value: PolicyValue, word: u32) -> Option<Self> {
        let mut parameters = self.clone();
        *parameters.words.get_mut(self.policy_type.index_of(value)?)? = word;
        Some(parameters)
    }

    /// Creates the parameters of round robin, the default of RFC 5356.
    #[must_use]
    pub fn round_robin() -> Self {
        Self::new(PolicyType::ROUND_ROBIN, &[])
    }

    /// Creates the parameters of least used, with a load of 0 (idle) to `u32::MAX` (fully used).
    #[must_use]
    pub fn least_used(load: u32) -> Self {
        Self::new(PolicyType::LEAST_USED, &[load])
    }

    /// Returns the number of the policy.
    #[must_use]
    pub fn policy_type(&self) -> PolicyType {
        self.policy_type
    }

    /// Returns the values, in the order of [`PolicyType::values`].
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    fn tail(&self) -> &[u8] {
        &self.tail[..self.tail_length.into()]
    }

    /// Returns the values as bytes, as on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .chain(self.tail().iter().copied())
            .collect()
    }
}

impl fmt::Display for PolicyParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy_type.fmt(f)?;
        self.words.iter().try_for_each(|word| write!(f, ":{word}"))
    }
}

impl fmt::Debug for PolicyParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyParameters({self})")
    }
}

/// Parses `NAME[:VALUE...]`: the name or number of a policy, and at most as many values as the
/// policy has. Loads may be percentages, as in `LeastUsed:25%`. Missing values are 0, missing
/// weights 1.
impl FromStr for PolicyParameters {
    type Err = InvalidPolicyText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let policy_type = PolicyType::KNOWN
            .iter()
            .find(|policy| policy.name().is_some_and(|known| known.eq_ignore_ascii_case(name)))
            .copied()
            .or_else(|| parse_number(name).map(PolicyType))
            .ok_or_else(|| InvalidPolicyText::UnknownPolicy(name.to_owned()))?;
        let mut words = parts
            .map(|part| {
                parse_value(part).ok_or_else(|| InvalidPolicyText::NotAValue(part.to_owned()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(values) = policy_type.values() {
            if words.len() > values.len() {
                return Err(InvalidPolicyText::TooManyValues { policy_type, most: values.len() });
            }
            words.extend(
                values[words.len()..].iter().map(|value| u32::from(*value == PolicyValue::Weight)),
            );
        }
        Ok(Self::new(policy_type, &words))
    }
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_value(text: &str) -> Option<u32> {
    match text.strip_suffix('%') {
        Some(percentage) => {
            let share = percentage.parse::<f64>().ok()? / 100.0;
            (0.0..=1.0).contains(&share).then(|| (share * f64::from(u32::MAX)).round() as u32)
        }
        None => parse_number(text),
    }
}

/// Error of parsing [`PolicyParameters`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicyText {
    /// The name is neither a known policy nor a number.
    #[error("unknown policy {0:?}: use RoundRobin, LeastUsed ... or a number")]
    UnknownPolicy(String),
    /// A value is neither a 32-bit number nor a percentage.
    #[error("{0:?} is not a value: use a number up to 4294967295 or a percentage")]
    NotAValue(String),
    /// There are more values than the policy has.
    #[error("{policy_type} takes at most {most} values")]
    TooManyValues {
        /// The policy.
        policy_type: PolicyType,
        /// The maximum number of values.
        most: usize,
    },
}

placeholder!(PolicyParameters = Self::new(PolicyType::ROUND_ROBIN, &[]));

impl Parameter for PolicyParameters {
    const NAME: &'static str = "Pool Member Selection Policy";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::Policy
    }

    fn parameter_type(&self) -> ParameterType {
        ParameterType::Policy
    }

    #[inline(always)]
    fn decode(&mut self, _: ParameterType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.policy_type = PolicyType(reader.u32()?);
        self.set_bytes(reader.rest());
        Ok(())
    }

    #[inline(always)]
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.policy_type.0);
        for word in &self.words {
            writer.u32(*word);
        }
        for byte in self.tail() {
            writer.u8(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_as_names_and_values() {
        let parse = |text: &str| text.parse::<PolicyParameters>();
        assert_eq!(parse("RoundRobin").unwrap(), PolicyParameters::round_robin());
        assert_eq!(parse("leastused:50%").unwrap(), PolicyParameters::least_used(1 << 31));
        assert_eq!(parse("WeightedRandom").unwrap().words(), [1]);
        assert_eq!(parse("0x80000001:7").unwrap().to_string(), "0x80000001:7");
        assert_eq!(
            parse("LeastUsed:1:2").unwrap_err().to_string(),
            "LeastUsed takes at most 1 values"
        );
        assert!(matches!(parse("Best"), Err(InvalidPolicyText::UnknownPolicy(_))));
        assert!(matches!(parse("LeastUsed:101%"), Err(InvalidPolicyText::NotAValue(_))));
    }
}
