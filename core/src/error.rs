//! The one error of every parser in this crate: what was read, where it went wrong, what would be right.
//!
//! Written by hand because the limiter may use this crate, and the limiter depends on nothing but libc.

use std::borrow::Cow;
use std::fmt;

/// Longest part of an input that a message repeats; inputs may come from strangers.
const SHOWN: usize = 120;

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What the text should have been, such as "byte size".
    pub what: &'static str,
    /// The text as given, cut to 120 characters.
    pub input: String,
    /// The first character that is wrong, counted from 0; the input's length when something is missing at its end.
    pub position: usize,
    /// What is allowed there.
    pub expected: Cow<'static, str>,
}

impl ParseError {
    /// An error at the character that begins at byte `offset` of `input`.
    #[must_use]
    pub fn new(
        what: &'static str,
        input: &str,
        offset: usize,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        let position = input
            .char_indices()
            .take_while(|(at, _)| *at < offset.min(input.len()))
            .count();
        let mut shown: String = input.chars().take(SHOWN).collect();
        if shown.len() < input.len() {
            shown.push('…');
        }
        Self {
            what,
            input: shown,
            position,
            expected: expected.into(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            input,
            position,
            expected,
        } = self;
        let place = position.saturating_add(1);
        write!(
            f,
            "invalid {what} {input:?} at character {place}: expected {expected}"
        )
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_input_position_and_expectation() {
        let error = ParseError::new("thing", "ab€d", 5, "a letter");
        assert_eq!(
            error.to_string(),
            "invalid thing \"ab€d\" at character 4: expected a letter"
        );
    }

    #[test]
    fn a_hostile_input_is_cut_and_escaped() {
        let error = ParseError::new("thing", &"\n".repeat(10_000), 0, "a letter");
        assert!(error.to_string().len() < 400, "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
