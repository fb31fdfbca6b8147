//! CDI names: `vendor/class=device`.
//!
//! **Source:** CDI `SPEC.md` and `pkg/parser/parser.go` of v1.1.0, with two rules added: the length limits of the
//! specification (which the reference parser does not check), and at least two characters for vendor and class,
//! because the reference parser slices `name[1:len-1]` and a one-letter name panics it, and the engine with it.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

/// Longest vendor, as a DNS subdomain.
const VENDOR_MAX: usize = 253;
/// Longest class, as a DNS label.
const CLASS_MAX: usize = 63;

/// A CDI device, fully named.
///
/// **Shape:** `tensor-fusion.ai/vgpu=gpu0-quarter`.
/// **Since:** CDI 0.3.0; a device name that begins with a digit 0.5.0; a class with dots 0.6.0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    vendor: String,
    class: String,
    name: String,
}

impl QualifiedName {
    /// A name from its three parts.
    ///
    /// # Errors
    /// [`ParseError`] ← a part breaks the grammar; the error is about that part.
    pub fn new(vendor: &str, class: &str, name: &str) -> Result<Self, ParseError> {
        check_vendor(vendor)?;
        check_class(class)?;
        check_device(name)?;
        Ok(Self {
            vendor: vendor.to_owned(),
            class: class.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Who defines the device, `tensor-fusion.ai`.
    #[must_use]
    pub fn vendor(&self) -> &str {
        &self.vendor
    }

    /// What sort of device it is, `vgpu`.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Which device it is, `gpu0-quarter`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Vendor and class, `tensor-fusion.ai/vgpu`.
    #[must_use]
    pub fn kind(&self) -> String {
        format!("{}/{}", self.vendor, self.class)
    }
}

/// Says whether `vendor` may name a vendor: a letter, then letters, digits, `_`, `-`, `.`, ending in a letter or a
/// digit; 2 to 253 characters.
///
/// # Errors
/// [`ParseError`] ← anything else.
pub fn check_vendor(vendor: &str) -> Result<(), ParseError> {
    check_vendor_or_class("CDI vendor", vendor, VENDOR_MAX)
}

/// Says whether `class` may name a class: as a vendor, but 2 to 63 characters.
///
/// # Errors
/// [`ParseError`] ← anything else.
pub fn check_class(class: &str) -> Result<(), ParseError> {
    check_vendor_or_class("CDI class", class, CLASS_MAX)
}

fn check_vendor_or_class(what: &'static str, text: &str, max: usize) -> Result<(), ParseError> {
    let fail = |offset, expected: String| Err(ParseError::new(what, text, offset, expected));
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return fail(0, "a letter first".to_owned());
    }
    if text.len() == 1 {
        return fail(
            1,
            "at least two characters, because a one-letter name crashes container engines"
                .to_owned(),
        );
    }
    if let Some(offset) = text.find(|c| !is_middle(c, false)) {
        return fail(offset, "letters, digits, '_', '-' or '.'".to_owned());
    }
    if text.len() > max {
        return fail(max, format!("at most {max} characters"));
    }
    check_end(what, text)
}

/// Says whether `name` may name a device: a letter or digit at both ends, between them also `_`, `-`, `.`, `:`.
///
/// # Errors
/// [`ParseError`] ← anything else.
pub fn check_device(name: &str) -> Result<(), ParseError> {
    let what = "CDI device name";
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(ParseError::new(what, name, 0, "a letter or a digit first"));
    }
    if let Some(offset) = name.find(|c| !is_middle(c, true)) {
        return Err(ParseError::new(
            what,
            name,
            offset,
            "letters, digits, '_', '-', '.' or ':'",
        ));
    }
    check_end(what, name)
}

fn is_middle(c: char, colon: bool) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') || (colon && c == ':')
}

/// The last character; every character before it has been checked, so it is one byte long.
fn check_end(what: &'static str, text: &str) -> Result<(), ParseError> {
    if text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(ParseError::new(
        what,
        text,
        text.len().saturating_sub(1),
        "a letter or a digit last",
    ))
}

/// Splits a CDI kind `vendor/class` and checks both parts.
///
/// # Errors
/// [`ParseError`] ← no slash, or a part breaks the grammar; positions count in the whole kind.
pub fn parse_kind(kind: &str) -> Result<(&str, &str), ParseError> {
    let Some((vendor, class)) = kind.split_once('/') else {
        return Err(ParseError::new(
            "CDI kind",
            kind,
            kind.len(),
            "vendor/class",
        ));
    };
    check_vendor(vendor).map_err(|e| within("CDI kind", kind, 0, e))?;
    check_class(class).map_err(|e| within("CDI kind", kind, vendor.len().saturating_add(1), e))?;
    Ok((vendor, class))
}

/// The same error seen from the text that `part` was taken from, `start` characters in.
fn within(what: &'static str, whole: &str, start: usize, part: ParseError) -> ParseError {
    // Everything before a part is ASCII by now, so characters and bytes count alike up to it.
    let mut error = ParseError::new(what, whole, 0, part.expected);
    error.position = start.saturating_add(part.position);
    error
}

impl FromStr for QualifiedName {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "qualified CDI device name";
        const SHAPE: &str = "vendor/class=device, such as tensor-fusion.ai/vgpu=gpu0-quarter";
        let Some((kind, name)) = input.split_once('=') else {
            return Err(ParseError::new(WHAT, input, input.len(), SHAPE));
        };
        let Some((vendor, class)) = kind.split_once('/') else {
            return Err(ParseError::new(WHAT, input, kind.len(), SHAPE));
        };
        check_vendor(vendor).map_err(|e| within(WHAT, input, 0, e))?;
        let class_at = vendor.len().saturating_add(1);
        check_class(class).map_err(|e| within(WHAT, input, class_at, e))?;
        let name_at = kind.len().saturating_add(1);
        check_device(name).map_err(|e| within(WHAT, input, name_at, e))?;
        Ok(Self {
            vendor: vendor.to_owned(),
            class: class.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}={}", self.vendor, self.class, self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_whole_grammar() {
        for text in [
            "tensor-fusion.ai/vgpu=gpu0-quarter",
            "nvidia.com/gpu=0:1",
            "v1/c_2=GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab",
            "ab/a.b=9",
            "a-._9/cd=a:._-b",
        ] {
            let name: QualifiedName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(
                QualifiedName::new(name.vendor(), name.class(), name.name()),
                Ok(name)
            );
        }
    }

    #[test]
    fn refuses_with_position_and_reason() {
        for (text, position, expected) in [
            ("", 0, "vendor/class=device"),
            ("vendor/class", 12, "vendor/class=device"),
            ("vendor=name", 6, "vendor/class=device"),
            ("/class=name", 0, "a letter first"),
            ("1v/class=name", 0, "a letter first"),
            ("v/class=name", 1, "crashes container engines"),
            ("vendor/c=name", 8, "crashes container engines"),
            ("ven dor/class=name", 3, "letters, digits"),
            ("vendor-/class=name", 6, "a letter or a digit last"),
            ("vendor/cl:ass=name", 9, "letters, digits"),
            ("vendor/class/x=name", 12, "letters, digits"),
            ("vendor/class=", 13, "a letter or a digit first"),
            ("vendor/class=-a", 13, "a letter or a digit first"),
            ("vendor/class=a=b", 14, "letters, digits"),
            ("vendor/class=a_", 14, "a letter or a digit last"),
            ("vendor/class=aé", 14, "letters, digits"),
        ] {
            let error = text.parse::<QualifiedName>().unwrap_err();
            assert_eq!(error.position, position, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        assert!(check_class(&"c".repeat(63)).is_ok());
        assert_eq!(check_class(&"c".repeat(64)).unwrap_err().position, 63);
        assert!(check_vendor(&"v".repeat(253)).is_ok());
        assert!(
            check_vendor(&"v".repeat(254))
                .unwrap_err()
                .to_string()
                .contains("253")
        );
    }

    #[test]
    fn a_kind_is_vendor_and_class() {
        assert_eq!(
            parse_kind("tensor-fusion.ai/vgpu"),
            Ok(("tensor-fusion.ai", "vgpu"))
        );
        assert_eq!(parse_kind("vendor").unwrap_err().position, 6);
        assert_eq!(parse_kind("vendor/c").unwrap_err().position, 8);
    }

    proptest! {
        #[test]
        fn every_name_of_the_grammar_round_trips(
            vendor in "[A-Za-z][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]",
            class in "[A-Za-z][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]",
            name in "[A-Za-z0-9]([A-Za-z0-9_.:-]{0,20}[A-Za-z0-9])?",
        ) {
            let text = format!("{vendor}/{class}={name}");
            let parsed: QualifiedName = text.parse().unwrap();
            prop_assert_eq!(parsed.to_string(), text);
            prop_assert_eq!(parsed.vendor(), vendor);
            prop_assert_eq!(parsed.class(), class);
            prop_assert_eq!(parsed.name(), name);
        }

        #[test]
        fn what_is_accepted_is_written_back_unchanged(text in "[a-z0-9_.:/= é-]{0,24}") {
            if let Ok(name) = text.parse::<QualifiedName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn no_input_panics(text in ".{0,40}") {
            if let Err(error) = text.parse::<QualifiedName>() {
                prop_assert!(error.position <= text.chars().count());
            }
        }
    }
}
