//! The identity of a GPU or of a MIG instance, as NVML writes it.
//!
//! Quotas, ledgers and grants are keyed by it, because ordinals change with `CUDA_VISIBLE_DEVICES` and with every
//! reordering. **Source:** `nvmlDeviceGetUUID`; the sixteen bytes are those of `CUuuid`.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const WHAT: &str = "GPU UUID";
const EXPECTED: &str = "GPU- or MIG- followed by 8-4-4-4-12 hexadecimal digits";
/// Where the dashes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` are.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const TEXT: usize = 36;

/// The identity of a GPU (`GPU-…`) or of a MIG instance (`MIG-…`).
///
/// Reads hexadecimal digits of both cases, writes lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid {
    mig: bool,
    bytes: [u8; 16],
}

impl DeviceUuid {
    /// The GPU with these bytes, in the order of `CUuuid`.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { mig: false, bytes }
    }

    /// The MIG instance with these bytes, in the order of `CUuuid`.
    #[must_use]
    pub const fn from_mig_bytes(bytes: [u8; 16]) -> Self {
        Self { mig: true, bytes }
    }

    /// The sixteen bytes, in the order of `CUuuid`.
    #[must_use]
    pub const fn as_bytes(&self) -> [u8; 16] {
        self.bytes
    }

    /// Whether this names a MIG instance and not a whole GPU.
    #[must_use]
    pub const fn is_mig(&self) -> bool {
        self.mig
    }
}

/// The value of a hexadecimal digit.
fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|n| u8::try_from(n).ok())
}

impl FromStr for DeviceUuid {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let fail = |offset| ParseError::new(WHAT, input, offset, EXPECTED);
        let (mig, digits) = match (input.strip_prefix("GPU-"), input.strip_prefix("MIG-")) {
            (Some(digits), _) => (false, digits),
            (None, Some(digits)) => (true, digits),
            (None, None) => return Err(fail(0)),
        };
        let mut bytes = [0_u8; 16];
        let mut count = 0_usize;
        for (at, digit) in digits.bytes().enumerate() {
            let offset = at.saturating_add(4);
            if DASHES.contains(&at) {
                if digit != b'-' {
                    return Err(fail(offset));
                }
                continue;
            }
            let value = nibble(digit).ok_or_else(|| fail(offset))?;
            let byte = bytes.get_mut(count >> 1).ok_or_else(|| fail(offset))?;
            *byte = (*byte << 4) | value;
            count = count.saturating_add(1);
        }
        if digits.len() != TEXT {
            return Err(fail(input.len()));
        }
        Ok(Self { mig, bytes })
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TEXT.saturating_add(4));
        text.push_str(if self.mig { "MIG-" } else { "GPU-" });
        for (at, byte) in self.bytes.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOME: &str = "GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab";

    #[test]
    fn reads_and_writes_nvml_text() {
        let uuid: DeviceUuid = SOME.parse().unwrap();
        assert_eq!(uuid.as_bytes()[..4], [0x8f, 0x3a, 0x1c, 0x02]);
        assert_eq!(uuid.as_bytes()[15], 0xab);
        assert_eq!(uuid.to_string(), SOME);
        assert_eq!(SOME.to_uppercase().parse(), Ok(uuid));
        assert!(
            SOME.replace("GPU", "MIG")
                .parse::<DeviceUuid>()
                .unwrap()
                .is_mig()
        );
    }

    #[test]
    fn refuses_with_position() {
        for (text, position) in [
            ("", 0),
            ("8f3a1c02-77de-4b1c-9a50-0123456789ab", 0),
            ("gpu-8f3a1c02-77de-4b1c-9a50-0123456789ab", 0),
            ("GPU-8f3a1c0g-77de-4b1c-9a50-0123456789ab", 11),
            ("GPU-8f3a1c02x77de-4b1c-9a50-0123456789ab", 12),
            ("GPU-8f3a1c02-77de-4b1c-9a50-0123456789a", 39),
            ("GPU-8f3a1c02-77de-4b1c-9a50-0123456789abc", 40),
            ("GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab/0/0", 40),
            ("GPU-é", 4),
        ] {
            let error = text.parse::<DeviceUuid>().unwrap_err();
            assert_eq!(error.position, position, "{error}");
            assert!(error.to_string().contains("8-4-4-4-12"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(bytes: [u8; 16], mig: bool) {
            let uuid = DeviceUuid { mig, bytes };
            prop_assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }

        #[test]
        fn no_input_panics(text in "(GPU-|MIG-)?.{0,48}") {
            let parsed = text.parse::<DeviceUuid>();
            prop_assert!(parsed.is_err() || parsed.unwrap().to_string() == text.to_lowercase().replacen("gpu", "GPU", 1).replacen("mig", "MIG", 1));
        }
    }
}
