//! Named quotas, and how one becomes a quota on a GPU of a given size.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::quota::QuotaError;
use crate::{Bytes, ParseError, Percent, QosClass, Quota, name};

/// Longest profile name; it is part of a CDI device name and of messages.
const NAME_MAX: usize = 40;

/// An amount of VRAM: a share of the GPU or a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VramSize {
    /// A share of what the GPU has to divide. **Units:** hundredths of a percent, 0 to 10000, because an eighth is
    /// 12.5%.
    Share(u16),
    /// A size.
    Size(Bytes),
}

impl VramSize {
    /// The size on a GPU with `capacity` to divide; a share is rounded down to a mebibyte.
    #[must_use]
    pub fn on(self, capacity: Bytes) -> Bytes {
        match self {
            Self::Share(share) => {
                let part = u128::from(capacity.0).saturating_mul(u128::from(share)) / 10_000;
                Bytes(u64::try_from(part).unwrap_or(capacity.0)).floor_mib()
            }
            Self::Size(size) => size,
        }
    }
}

impl FromStr for VramSize {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let Some(number) = input.strip_suffix('%') else {
            return input.parse().map(Self::Size);
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let hundredths = (digits(whole) && digits(fraction) && fraction.len() <= 2)
            .then(|| format!("{whole}{fraction:0<2}").parse().ok())
            .flatten()
            .filter(|hundredths| *hundredths <= 10_000);
        hundredths.map(Self::Share).ok_or_else(|| {
            ParseError::new(
                "share of VRAM",
                input,
                0,
                "0% to 100%, with at most two decimals",
            )
        })
    }
}

impl fmt::Display for VramSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => {
                let (whole, rest) = (share / 100, share % 100);
                let text = format!("{whole}.{rest:02}");
                f.pad(&format!(
                    "{}%",
                    text.trim_end_matches('0').trim_end_matches('.')
                ))
            }
            Self::Size(size) => size.fmt(f),
        }
    }
}

/// A named quota of the node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name, the last part of a CDI device name: `quarter` in `gpu0-quarter`.
    pub name: String,
    /// The most VRAM.
    pub vram: VramSize,
    /// The guaranteed VRAM; all of it where absent.
    pub vram_request: Option<VramSize>,
    /// The largest share of the GPU's time.
    pub compute: Percent,
    /// The guaranteed share; all of it where absent.
    pub compute_request: Option<Percent>,
    /// Who is served first.
    pub qos: QosClass,
}

impl Profile {
    /// A profile of `percent` of a GPU in VRAM and in compute.
    #[must_use]
    pub fn share(name: &str, percent: Percent) -> Self {
        Self {
            name: name.to_owned(),
            vram: VramSize::Share(u16::from(percent.get()).saturating_mul(100)),
            vram_request: None,
            compute: percent,
            compute_request: None,
            qos: QosClass::default(),
        }
    }

    /// The whole of a GPU: what a device without a profile in its name stands for.
    #[must_use]
    pub fn whole() -> Self {
        Self::share("full", Percent::FULL)
    }

    /// The quota on a GPU with `capacity` to divide.
    ///
    /// # Errors
    /// [`ProfileError`] ← it is larger than the GPU, or its parts disagree there.
    pub fn quota(&self, capacity: Bytes) -> Result<Quota, ProfileError> {
        let vram_limit = self.vram.on(capacity);
        let quota = Quota {
            vram_limit,
            vram_request: self
                .vram_request
                .map_or(vram_limit, |request| request.on(capacity)),
            compute_limit: self.compute,
            compute_request: self.compute_request.unwrap_or(self.compute),
            qos: self.qos,
        };
        if vram_limit > capacity {
            return Err(ProfileError::LargerThanGpu {
                profile: self.name.clone(),
                vram: vram_limit,
                capacity,
            });
        }
        quota.check().map_err(|cause| ProfileError::Quota {
            profile: self.name.clone(),
            cause,
        })?;
        Ok(quota)
    }
}

/// A profile that cannot be granted on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// It asks for more than the GPU has to divide.
    LargerThanGpu {
        /// The profile.
        profile: String,
        /// What it asks for.
        vram: Bytes,
        /// What there is.
        capacity: Bytes,
    },
    /// Its parts disagree.
    Quota {
        /// The profile.
        profile: String,
        /// How.
        cause: QuotaError,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LargerThanGpu {
                profile,
                vram,
                capacity,
            } => write!(
                f,
                "profile {profile} asks for {vram} ({} bytes) of VRAM: expected at most {capacity} ({} bytes), what the GPU has to divide",
                vram.0, capacity.0
            ),
            Self::Quota { profile, cause } => write!(f, "profile {profile} carries {cause}"),
        }
    }
}

impl std::error::Error for ProfileError {}

/// Says whether `name` may name a profile: a CDI device name without `:`, at most 40 characters.
pub(super) fn check_name(name: &str) -> Result<(), ParseError> {
    name::check_device(name)?;
    let what = "profile name";
    if let Some(offset) = name.find(':') {
        return Err(ParseError::new(
            what,
            name,
            offset,
            "letters, digits, '_', '-' or '.'",
        ));
    }
    if name.len() > NAME_MAX {
        return Err(ParseError::new(
            what,
            name,
            NAME_MAX,
            "at most 40 characters",
        ));
    }
    Ok(())
}

/// The profiles of a node whose configuration names none; an eighth is 12.5% of the VRAM and 12% of the time, as a
/// share of time is a whole percent.
pub(super) fn defaults() -> BTreeMap<String, Profile> {
    [
        ("full", 10_000, 100),
        ("half", 5_000, 50),
        ("quarter", 2_500, 25),
        ("eighth", 1_250, 12),
    ]
    .into_iter()
    .filter_map(|(name, share, compute)| {
        let profile = Profile::share(name, Percent::new(compute)?);
        Some((
            name.to_owned(),
            Profile {
                vram: VramSize::Share(share),
                ..profile
            },
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_quarters_fit_in_any_gpu() {
        let quarter = &defaults()["quarter"];
        for capacity in [150_754_820_096, 1 << 35, (1 << 34) + 12_345, 5 << 20] {
            let quota = quarter.quota(Bytes(capacity)).unwrap();
            assert!(quota.vram_limit.0 * 4 <= capacity);
            assert_eq!(quota.vram_limit.0 % (1 << 20), 0);
            assert_eq!(quota.vram_request, quota.vram_limit);
            assert_eq!(quota.compute_limit, Percent::new(25).unwrap());
        }
    }

    #[test]
    fn shares_of_vram_round_trip() {
        for (text, hundredths) in [
            ("0%", 0),
            ("12.5%", 1_250),
            ("25%", 2_500),
            ("33.33%", 3_333),
            ("100%", 10_000),
        ] {
            assert_eq!(text.parse(), Ok(VramSize::Share(hundredths)), "{text}");
            assert_eq!(VramSize::Share(hundredths).to_string(), text);
        }
        for bad in [
            "%",
            "101%",
            "1.234%",
            ".5%",
            "5.%",
            "-1%",
            "1e1%",
            "100.01%",
            "999999999%",
        ] {
            let error = bad.parse::<VramSize>().unwrap_err().to_string();
            assert!(error.contains("0% to 100%"), "{error}");
        }
        assert_eq!("4Gi".parse(), Ok(VramSize::Size(Bytes::mib(4096))));
    }

    #[test]
    fn eight_eighths_use_nearly_all() {
        let capacity = Bytes(150_754_820_096);
        let eighth = defaults()["eighth"].quota(capacity).unwrap().vram_limit;
        assert!(eighth.0 * 8 <= capacity.0 && capacity.0 - eighth.0 * 8 < 16 << 20);
    }

    #[test]
    fn a_profile_larger_than_the_gpu_says_both_sizes() {
        let profile = Profile {
            vram: VramSize::Size(Bytes::mib(4096)),
            ..Profile::share("big", Percent::FULL)
        };
        let error = profile.quota(Bytes::mib(2048)).unwrap_err().to_string();
        assert_eq!(
            error,
            "profile big asks for 4 GiB (4294967296 bytes) of VRAM: expected at most 2 GiB (2147483648 bytes), what the GPU has to divide"
        );
    }

    #[test]
    fn a_share_of_a_tiny_gpu_is_refused_and_not_zero() {
        let quarter = &defaults()["quarter"];
        assert!(
            quarter
                .quota(Bytes::mib(3))
                .unwrap_err()
                .to_string()
                .contains("profile quarter")
        );
    }

    #[test]
    fn names() {
        for good in ["quarter", "4gi-25", "a", "a.b_c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a:b", "a b", "a/b", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
