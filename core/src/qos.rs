//! Priority classes of a vGPU.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

/// Who waits for whom when a GPU is contended; higher classes are served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum QosClass {
    /// Takes what is left.
    Low,
    /// The default.
    #[default]
    Medium,
    /// Before the default.
    High,
    /// Before everybody.
    Critical,
}

impl QosClass {
    /// Every class, lowest first; a class's index here is its number on the wire.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The number in shared pages: 0 low to 3 critical.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Low => 0,
            Self::Medium => 1,
            Self::High => 2,
            Self::Critical => 3,
        }
    }

    /// The class with this number in shared pages.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl FromStr for QosClass {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == input)
            .ok_or_else(|| {
                ParseError::new("QoS class", input, 0, "one of low, medium, high, critical")
            })
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_round_trips() {
        for class in QosClass::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(QosClass::from_u8(class.as_u8()), Some(class));
        }
        assert_eq!(QosClass::from_u8(4), None);
        assert!(QosClass::Low < QosClass::Critical);
    }

    #[test]
    fn refuses_with_the_allowed_names() {
        for text in ["", "Medium", "best", "low "] {
            let error = text.parse::<QosClass>().unwrap_err().to_string();
            assert!(error.contains("low, medium, high, critical"), "{error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
