//! Selection policies that an operator defines by an expression, which is evaluated for each
//! element.
//!
//! Expressions were chosen instead of loadable modules. An expression is checked when it is read,
//! is bounded (it has no loops and no memory), cannot crash the registrar, and needs no compiler on
//! the operator's host. It is evaluated once for each registration, not for each selection. For
//! more, write a [`SelectionPolicy`](rserpool::proto::policy::SelectionPolicy) and a registrar of
//! five lines.

use std::str::FromStr;
use std::sync::Arc;

use exmex::prelude::*;
use rserpool::proto::policy::{ByOrder, ByWeight, Order, Policies, Weight};
use rserpool::{PolicyParameters, PolicyType};

/// Maximum length of a rule in bytes.
const MAX_LENGTH: usize = 1000;
/// Factor by which a rule's values are multiplied to form sort keys: the order takes three decimal
/// places into account. Values beyond 9e15 are equal.
const SCALE: f64 = 1000.0;
/// Maximum number of words of an element's policy that a rule may use.
const MAX_WORDS: usize = 64;

/// A policy that the operator defines.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    policy_type: PolicyType,
    kind: Kind,
    value: Arc<Expression>,
    degradation: Option<Arc<Expression>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Order,
    Weight,
}

/// An expression that maps the words of an element's policy to a number.
#[derive(Debug)]
struct Expression {
    parsed: FlatEx<f64>,
    /// Index of the parameter word for each variable, in the order of the variables' names.
    variables: Vec<usize>,
}

impl Rule {
    pub(super) fn add_to(&self, policies: Policies) -> Policies {
        match self.kind {
            Kind::Order => policies.with(ByOrder(self.clone())),
            Kind::Weight => policies.with(ByWeight(self.clone())),
        }
    }

    fn words(&self) -> usize {
        let expressions = [Some(&self.value), self.degradation.as_ref()];
        let variables = expressions.into_iter().flatten().flat_map(|it| &it.variables);
        variables.max().map_or(0, |word| word + 1)
    }

    fn degradation(&self, parameters: &PolicyParameters, scale: f64) -> u32 {
        let degradation = self.degradation.as_ref();
        degradation.map_or(0, |expression| word(expression.evaluate(parameters) * scale))
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("a rule has at most {MAX_LENGTH} bytes"));
        }
        let form = || "it is NUMBER=order:EXPR or NUMBER=weight:EXPR".to_owned();
        let (number, rule) = text.split_once('=').ok_or_else(form)?;
        let (kind, expressions) = rule.split_once(':').ok_or_else(form)?;
        let kind = match kind.trim() {
            "order" => Kind::Order,
            "weight" => Kind::Weight,
            _ => return Err(form()),
        };
        let number = number.trim();
        let number = match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        let policy_type = PolicyType(number.map_err(|_| "the number of a policy has 32 bits")?);
        if let Some(name) = policy_type.name() {
            return Err(format!("{:#x} is {name}: choose another number", policy_type.0));
        }
        let (value, degradation) = match expressions.split_once(';') {
            Some((value, degradation)) => (value, Some(degradation)),
            None => (expressions, None),
        };
        Ok(Self {
            policy_type,
            kind,
            value: Arc::new(value.parse()?),
            degradation: degradation.map(|text| text.parse().map(Arc::new)).transpose()?,
        })
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Reject `^`: the parser would apply it after a minus sign, and from the left, unlike the
        // usual convention.
        if text.contains('^') {
            return Err("^ is not supported: write a product instead".to_owned());
        }
        // Words are parsed as variables, whose names may contain anything in braces.
        let braced = text.replace("words[", "{words[").replace(']', "]}");
        let parsed = FlatEx::parse(&braced).map_err(|error| error.to_string())?;
        let word = |name: &String| {
            let index = match name.as_str() {
                "load" => Some(0),
                name => name
                    .strip_prefix("words[")
                    .and_then(|rest| rest.strip_suffix(']'))
                    .and_then(|index| index.parse().ok())
                    .filter(|index| *index < MAX_WORDS),
            };
            index.ok_or_else(|| {
                format!("there is no {name}: words[0] to words[{}], and load", MAX_WORDS - 1)
            })
        };
        let variables = parsed.var_names().iter().map(word).collect::<Result<_, _>>()?;
        Ok(Self { parsed, variables })
    }
}

impl Expression {
    fn evaluate(&self, parameters: &PolicyParameters) -> f64 {
        let word = |index: &usize| parameters.words().get(*index).copied().unwrap_or(0);
        let values: Vec<_> = self.variables.iter().map(|index| f64::from(word(index))).collect();
        self.parsed.eval(&values).unwrap_or(f64::NAN)
    }
}

/// Returns the nearest 32-bit number; 0 for NaN.
fn word(value: f64) -> u32 {
    value.round() as u32
}

impl Order for Rule {
    fn policy_type(&self) -> PolicyType {
        self.policy_type
    }

    fn words(&self) -> usize {
        Self::words(self)
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        // The key sorts negative values before positive ones, and NaN last.
        let value = self.value.evaluate(parameters);
        if value.is_nan() { u64::MAX } else { ((value * SCALE).round() as i64).abs_diff(i64::MIN) }
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        Self::degradation(self, parameters, SCALE)
    }
}

impl Weight for Rule {
    fn policy_type(&self) -> PolicyType {
        self.policy_type
    }

    fn words(&self) -> usize {
        Self::words(self)
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        word(self.value.evaluate(parameters))
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        Self::degradation(self, parameters, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rule: &str, words: &[u32]) -> u64 {
        let rule: Rule = rule.parse().unwrap();
        Order::key(&rule, &PolicyParameters::new(PolicyType(0x8000_0001), words))
    }

    #[test]
    fn the_smallest_value_has_the_smallest_key() {
        let rule = "0x80000001=order: load + 3 * words[1]";
        assert!(key(rule, &[10, 1]) < key(rule, &[5, 3]));
        assert_eq!(key(rule, &[10, 1]), key(rule, &[1, 4]));
        let difference = "7=order:words[0]-words[1]";
        let keys = [[0, 9], [0, 1], [1, 1], [2, 1]].map(|words| key(difference, &words));
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
        assert_eq!(key("7=order:0/0", &[]), u64::MAX);
        assert_eq!(key("7=order:words[0]/0", &[1]), u64::MAX);
        assert!(key("7=order:0.001", &[]) > key("7=order:0", &[]));
        assert!(key("7=order:words[0]*words[1]", &[u32::MAX; 2]) > key(rule, &[u32::MAX; 2]));
        let rule: Rule = rule.parse().unwrap();
        assert_eq!((Order::words(&rule), rule.policy_type), (2, PolicyType(0x8000_0001)));
        let rule: Rule = "7=order:load;0.3".parse().unwrap();
        assert_eq!(Order::degradation(&rule, &PolicyParameters::new(PolicyType(7), &[0])), 300);
    }

    #[test]
    fn weights_are_numbers_of_32_bits() {
        let weight = |rule: &str, words: &[u32]| {
            let rule: Rule = rule.parse().unwrap();
            let parameters = PolicyParameters::new(PolicyType(7), words);
            (Weight::weight(&rule, &parameters), Weight::degradation(&rule, &parameters))
        };
        assert_eq!(weight("7=weight:words[1]; words[0] / 2", &[4, 9]), (9, 2));
        assert_eq!(weight("7=weight:words[0] - 10", &[4]), (0, 0));
        assert_eq!(weight("7=weight:words[0] * 10", &[u32::MAX]), (u32::MAX, 0));
        assert_eq!(weight("7=weight:max(words[0], 3)", &[2]), (3, 0));
        assert_eq!(weight("7=weight:ln(0-1)", &[]), (0, 0));
    }

    #[test]
    fn what_is_wrong_is_said_when_it_is_read() {
        for (text, why) in [
            ("order:load", "NUMBER=order"),
            ("7=best:load", "NUMBER=order"),
            ("7=order", "NUMBER=order"),
            ("1=order:load", "RoundRobin"),
            ("0x123456789=order:load", "32 bits"),
            ("7=order:distance", "no distance"),
            ("7=order:words[64]", "no words[64]"),
            ("7=order:words[-1]", "words"),
            ("7=order:(load", "parentheses"),
            ("7=order:load +", ""),
            ("7=order:", ""),
            ("7=order:-load^2", "^ is not supported"),
            ("7=order:load;", ""),
        ] {
            let error = text.parse::<Rule>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(format!("7=order:{}", "1+".repeat(1000)).parse::<Rule>().is_err());
    }
}
