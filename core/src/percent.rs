//! Whole percents from 0 to 100.

use std::fmt;
use std::str::FromStr;

use crate::{Bytes, ParseError};

const EXPECTED: &str = "a whole number from 0 to 100, with or without %";

/// A share in whole percents.
///
/// **Units:** percent, 0 to 100. Reads `25` and `25%`, writes `25%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(u8);

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Everything.
    pub const FULL: Self = Self(100);

    /// A share of `percent` hundredths; nothing where it is above 100.
    #[must_use]
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 {
            Some(Self(percent))
        } else {
            None
        }
    }

    /// The number of hundredths, 0 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// This share of `whole`, rounded down to a byte.
    #[must_use]
    pub fn of(self, whole: Bytes) -> Bytes {
        let part = u128::from(whole.0).saturating_mul(u128::from(self.0)) / 100;
        Bytes(u64::try_from(part).unwrap_or(whole.0))
    }
}

impl TryFrom<u8> for Percent {
    type Error = ParseError;

    fn try_from(percent: u8) -> Result<Self, ParseError> {
        Self::new(percent)
            .ok_or_else(|| ParseError::new("percentage", &percent.to_string(), 0, EXPECTED))
    }
}

impl FromStr for Percent {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let digits = input.strip_suffix('%').unwrap_or(input);
        let fail = |offset| ParseError::new("percentage", input, offset, EXPECTED);
        if let Some(offset) = digits.find(|c: char| !c.is_ascii_digit()) {
            return Err(fail(offset));
        }
        digits
            .parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| fail(0))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_round_trips() {
        for n in 0..=100 {
            let percent = Percent::new(n).unwrap();
            assert_eq!(percent.to_string().parse(), Ok(percent));
            assert_eq!(n.to_string().parse(), Ok(percent));
        }
    }

    #[test]
    fn refuses_with_position() {
        for (text, position) in [
            ("", 0),
            ("%", 0),
            ("101", 0),
            ("25.5", 2),
            ("-1", 0),
            ("25 %", 2),
            ("999999", 0),
        ] {
            let error = text.parse::<Percent>().unwrap_err();
            assert_eq!(error.position, position, "{error}");
            assert!(error.to_string().contains("0 to 100"), "{error}");
        }
        assert!(Percent::try_from(101).is_err());
    }

    #[test]
    fn a_share_of_a_size_rounds_down() {
        assert_eq!(Percent(25).of(Bytes(7)), Bytes(1));
        assert_eq!(Percent::FULL.of(Bytes(u64::MAX)), Bytes(u64::MAX));
    }
}
