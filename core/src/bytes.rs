//! Sizes in bytes, as people write them and as people read them.
//!
//! Units are case-sensitive on purpose: Kubernetes gives `m` and `M` different meanings and docker reads `g` as GiB,
//! so a lower-case unit is refused instead of guessed.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const UNITS: &str =
    "a unit: none or B, decimal K M G T P (also KB, k), binary Ki Mi Gi Ti Pi (also KiB)";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A size in bytes.
///
/// Reads `4294967296`, `4Gi`, `4096Mi`, `4GiB`, `1.5Gi` (binary) and `4G`, `4GB` (decimal); a fraction of a byte is
/// dropped. Writes the nearest tenth of the largest binary unit, `35.1 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` mebibytes, the largest size where that does not fit.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(MIB))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The largest whole number of mebibytes that fits in this size.
    #[must_use]
    pub const fn floor_mib(self) -> Self {
        Self(self.0 & !(MIB.wrapping_sub(1)))
    }

    /// This size less `other`, zero where `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<u64> for Bytes {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

/// The factor of a unit suffix.
fn factor(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "k" | "K" | "KB" | "kB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "P" | "PB" => 1_000_000_000_000_000,
        "Ki" | "KiB" => KIB,
        "Mi" | "MiB" => MIB,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        "Pi" | "PiB" => 1 << 50,
        _ => return None,
    })
}

/// Digits before and after the point as one number, and the power of ten that it is too large by.
fn decimal(whole: &str, fraction: &str) -> Option<(u128, u128)> {
    let digits: u128 = [whole, fraction].concat().parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some((digits, scale))
}

impl FromStr for Bytes {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let fail = |offset, expected| Err(ParseError::new("byte size", input, offset, expected));
        let number_end = input
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(input.len());
        let (number, rest) = input.split_at(number_end);
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        if whole.is_empty() {
            return fail(0, "a number such as 4Gi, 4096Mi, 1.5GiB or 4294967296");
        }
        if fraction.is_some_and(|digits| digits.is_empty() || digits.contains('.')) {
            return fail(
                whole.len().saturating_add(1),
                "digits after one decimal point",
            );
        }
        let fraction = fraction.unwrap_or_default();
        if fraction.len() > 12 {
            return fail(number_end, "at most 12 digits after the point");
        }
        let unit = rest.strip_prefix(' ').unwrap_or(rest);
        let Some(factor) = factor(unit) else {
            return fail(number_end, UNITS);
        };
        let bytes = decimal(whole, fraction)
            .and_then(|(digits, scale)| digits.checked_mul(u128::from(factor))?.checked_div(scale))
            .and_then(|bytes| u64::try_from(bytes).ok());
        match bytes {
            Some(bytes) => Ok(Self(bytes)),
            None => fail(0, "at most 18446744073709551615 bytes"),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < KIB {
            return f.pad(&format!("{} B", self.0));
        }
        let mut divisor = u128::from(KIB);
        let mut tenths = 0;
        let mut unit = "";
        for candidate in units {
            // Rounded to the nearest tenth before the unit is chosen, so that no size reads "1024 MiB".
            tenths = u128::from(self.0)
                .saturating_mul(10)
                .saturating_add(divisor >> 1)
                .checked_div(divisor)
                .unwrap_or_default();
            unit = candidate;
            if tenths < 10_240 {
                break;
            }
            divisor <<= 10;
        }
        let (whole, tenth) = (tenths / 10, tenths % 10);
        if tenth == 0 {
            f.pad(&format!("{whole} {unit}"))
        } else {
            f.pad(&format!("{whole}.{tenth} {unit}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let gib = 1_u64 << 30;
        for (text, bytes) in [
            ("4Gi", 4 << 30),
            ("4096Mi", 4 << 30),
            ("4GiB", 4 << 30),
            ("4 GiB", 4 << 30),
            ("4294967296", 4 << 30),
            ("4294967296B", 4 << 30),
            ("4G", 4_000_000_000),
            ("4GB", 4_000_000_000),
            ("1.5Gi", gib + gib / 2),
            ("0.5Ki", 512),
            ("0.0001Ki", 0),
            ("0", 0),
            ("12k", 12_000),
            ("1Pi", 1 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_with_position_and_what_is_allowed() {
        for (text, position, expected) in [
            ("", 0, "a number"),
            ("Gi", 0, "a number"),
            ("-1", 0, "a number"),
            (" 1", 0, "a number"),
            ("4Qi", 1, "a unit"),
            ("4gi", 1, "a unit"),
            ("4  Gi", 1, "a unit"),
            ("4Gi ", 1, "a unit"),
            ("4GiBB", 1, "a unit"),
            ("1.Gi", 2, "digits"),
            ("1.2.3", 2, "digits"),
            ("1.0000000000001", 15, "at most 12 digits"),
            ("18446744073709551616", 0, "at most 18446744073709551615"),
            (
                "99999999999999999999999999999999999999999999",
                0,
                "at most 1844",
            ),
            ("20000Pi", 0, "at most 1844"),
        ] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(
                error.to_string().contains(&format!("{text:?}")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn writes_what_people_read() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (37_688_980_275, "35.1 GiB"),
            (4 << 30, "4 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}", Bytes(4 << 30)), "   4 GiB");
    }

    #[test]
    fn floors_to_mebibytes() {
        assert_eq!(Bytes((1 << 20) + 1).floor_mib(), Bytes::mib(1));
        assert_eq!(Bytes((1 << 20) - 1).floor_mib(), Bytes::ZERO);
        assert_eq!(Bytes::mib(u64::MAX), Bytes(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_plain_number_round_trips(bytes: u64) {
            prop_assert_eq!(bytes.to_string().parse::<Bytes>(), Ok(Bytes(bytes)));
        }

        #[test]
        fn whole_mebibytes_round_trip(n in 0_u64..1 << 40) {
            prop_assert_eq!(format!("{n}Mi").parse::<Bytes>(), Ok(Bytes(n << 20)));
        }

        #[test]
        fn the_written_form_reads_back_within_its_rounding(bytes in 0_u64..1 << 59) {
            let read: Bytes = Bytes(bytes).to_string().parse().unwrap();
            prop_assert!(read.0.abs_diff(bytes) <= (bytes / 20).saturating_add(1));
        }

        #[test]
        fn no_input_panics(text in ".{0,40}") {
            let parsed = text.parse::<Bytes>();
            prop_assert!(parsed.is_ok() || parsed.unwrap_err().position <= text.len());
        }
    }
}
