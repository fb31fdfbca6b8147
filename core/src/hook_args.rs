//! The command line between the CDI spec, which carries it, and the OCI hook, which obeys it. Frozen: version `v1`.
//!
//! Specs outlive packages: a container created last month is started again with the arguments it was created with.
//! So `v1` carries the whole quota from its first day, no key is ever renamed or dropped, and an unknown, missing or
//! repeated key is refused, because a hook that ignores part of a quota does not enforce it. A change means `v2`.
//!
//! The arguments are written by the host into a file of the host; a tenant cannot change them.

use std::fmt;

use crate::name::check_device;
use crate::quota::QuotaError;
use crate::{Backend, Bytes, DeviceUuid, ParseError, Percent, QosClass, Quota};

/// The version of this command line.
pub const VERSION: &str = "v1";
/// The name that the hook is called by.
pub const PROGRAM: &str = "vgpu-hook";
/// Every key, in the order they are written.
pub const KEYS: [&str; 13] = [
    "gpu-uuid",
    "gpu-capacity",
    "vram-limit",
    "vram-request",
    "compute-limit",
    "compute-request",
    "qos",
    "back-end",
    "device",
    "oversubscription-percent",
    "context-footprint",
    "run-dir",
    "limiter-dir",
];

/// The moment of a container's life that the hook is called at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Host namespaces, before the container's root is entered: admission, region, grant.
    CreateRuntime,
    /// The container's mount namespace: binds and the loader.
    CreateContainer,
    /// After the container is gone: release.
    Poststop,
}

impl Stage {
    /// Every stage, in the order a container lives through them.
    pub const ALL: [Self; 3] = [Self::CreateRuntime, Self::CreateContainer, Self::Poststop];

    /// The word on the hook's command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateRuntime => "create-runtime",
            Self::CreateContainer => "create-container",
            Self::Poststop => "poststop",
        }
    }

    /// The hook's name in CDI and in the OCI runtime specification.
    #[must_use]
    pub const fn oci_name(self) -> &'static str {
        match self {
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::Poststop => "poststop",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Everything the hook is told about one vGPU of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookArgs {
    /// The GPU that the vGPU is a slice of.
    pub gpu_uuid: DeviceUuid,
    /// What that GPU has to divide: its VRAM less what the driver keeps. **Units:** bytes.
    pub gpu_capacity: Bytes,
    /// The slice.
    pub quota: Quota,
    /// What enforces it.
    pub backend: Backend,
    /// The CDI device name, `gpu0-quarter`; for messages and lists.
    pub device: String,
    /// How much of the capacity may be promised in sum. **Units:** percent, 100 is all of it once.
    pub oversubscription_percent: u32,
    /// What a context is taken to hold until it is measured. **Units:** bytes.
    pub context_footprint: Bytes,
    /// Where grants and regions live on the host; an absolute path.
    pub run_dir: String,
    /// Where the limiter's libraries live on the host; an absolute path.
    pub limiter_dir: String,
}

impl HookArgs {
    /// The whole command line for one stage, the program's name first, as an OCI hook's `args` wants it.
    #[must_use]
    pub fn to_args(&self, stage: Stage) -> Vec<String> {
        let mut args = vec![
            PROGRAM.to_owned(),
            VERSION.to_owned(),
            stage.as_str().to_owned(),
        ];
        args.extend(
            KEYS.iter()
                .zip(self.values())
                .map(|(key, value)| format!("--{key}={value}")),
        );
        args
    }

    /// The values in the order of [`KEYS`].
    fn values(&self) -> [String; KEYS.len()] {
        [
            self.gpu_uuid.to_string(),
            self.gpu_capacity.0.to_string(),
            self.quota.vram_limit.0.to_string(),
            self.quota.vram_request.0.to_string(),
            self.quota.compute_limit.get().to_string(),
            self.quota.compute_request.get().to_string(),
            self.quota.qos.to_string(),
            self.backend.to_string(),
            self.device.clone(),
            self.oversubscription_percent.to_string(),
            self.context_footprint.0.to_string(),
            self.run_dir.clone(),
            self.limiter_dir.clone(),
        ]
    }

    /// Reads what [`HookArgs::to_args`] wrote; the first argument, the program's own name, is not looked at.
    ///
    /// # Errors
    /// [`ArgsError`] ← another version, an unknown stage, an unknown, repeated or missing key, a value that does not
    /// parse, or a quota whose parts disagree.
    pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<(Stage, Self), ArgsError> {
        let mut words = args.iter().skip(1).map(AsRef::as_ref);
        let version = words.next().unwrap_or_default();
        if version != VERSION {
            return Err(ArgsError::Version {
                found: version.to_owned(),
            });
        }
        let word = words.next().unwrap_or_default();
        let stage = Stage::ALL
            .into_iter()
            .find(|stage| stage.as_str() == word)
            .ok_or_else(|| ArgsError::Stage {
                found: word.to_owned(),
            })?;
        let parsed = Values::collect(words)?.into_args()?;
        parsed.quota.check().map_err(ArgsError::Quota)?;
        Ok((stage, parsed))
    }
}

/// The values of the command line, by the index of their key.
struct Values<'a>([Option<&'a str>; KEYS.len()]);

impl<'a> Values<'a> {
    fn collect(words: impl Iterator<Item = &'a str>) -> Result<Self, ArgsError> {
        let mut values = [None; KEYS.len()];
        for word in words {
            let unknown = || ArgsError::UnknownKey {
                argument: word.to_owned(),
            };
            let (key, value) = word
                .strip_prefix("--")
                .and_then(|w| w.split_once('='))
                .ok_or_else(unknown)?;
            let at = KEYS
                .iter()
                .position(|known| *known == key)
                .ok_or_else(unknown)?;
            let slot = values.get_mut(at).ok_or_else(unknown)?;
            if slot.replace(value).is_some() {
                return Err(ArgsError::RepeatedKey {
                    key: key.to_owned(),
                });
            }
        }
        Ok(Self(values))
    }

    fn get(&self, key: &'static str) -> Result<&'a str, ArgsError> {
        let at = KEYS.iter().position(|known| *known == key);
        at.and_then(|at| self.0.get(at).copied().flatten())
            .ok_or(ArgsError::MissingKey { key })
    }

    fn parse<T: std::str::FromStr<Err = ParseError>>(
        &self,
        key: &'static str,
    ) -> Result<T, ArgsError> {
        self.get(key)?
            .parse()
            .map_err(|source| ArgsError::Value { key, source })
    }

    /// A number in plain digits: machines write this command line, so no unit and no sign is accepted.
    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, ArgsError> {
        let text = self.get(key)?;
        let fail = |offset| ArgsError::Value {
            key,
            source: ParseError::new("number", text, offset, "plain decimal digits, in range"),
        };
        if let Some(offset) = text.find(|c: char| !c.is_ascii_digit()) {
            return Err(fail(offset));
        }
        text.parse().map_err(|_| fail(0))
    }

    fn bytes(&self, key: &'static str) -> Result<Bytes, ArgsError> {
        self.number(key).map(Bytes)
    }

    fn percent(&self, key: &'static str) -> Result<Percent, ArgsError> {
        let number: u8 = self.number(key)?;
        Percent::try_from(number).map_err(|source| ArgsError::Value { key, source })
    }

    fn device(&self) -> Result<String, ArgsError> {
        let name = self.get("device")?;
        check_device(name).map_err(|source| ArgsError::Value {
            key: "device",
            source,
        })?;
        Ok(name.to_owned())
    }

    /// An absolute path without `..`, so that what a log shows is where things are.
    fn path(&self, key: &'static str) -> Result<String, ArgsError> {
        let text = self.get(key)?;
        let bad = !text.starts_with('/')
            || text.split('/').any(|part| part == "..")
            || text.contains(char::is_control);
        if bad {
            let source = ParseError::new("path", text, 0, "an absolute path without '..'");
            return Err(ArgsError::Value { key, source });
        }
        Ok(text.to_owned())
    }

    fn into_args(self) -> Result<HookArgs, ArgsError> {
        Ok(HookArgs {
            gpu_uuid: self.parse::<DeviceUuid>("gpu-uuid")?,
            gpu_capacity: self.bytes("gpu-capacity")?,
            quota: Quota {
                vram_limit: self.bytes("vram-limit")?,
                vram_request: self.bytes("vram-request")?,
                compute_limit: self.percent("compute-limit")?,
                compute_request: self.percent("compute-request")?,
                qos: self.parse::<QosClass>("qos")?,
            },
            backend: self.parse::<Backend>("back-end")?,
            device: self.device()?,
            oversubscription_percent: self.number("oversubscription-percent")?,
            context_footprint: self.bytes("context-footprint")?,
            run_dir: self.path("run-dir")?,
            limiter_dir: self.path("limiter-dir")?,
        })
    }
}

/// A hook command line that is not understood as a whole and therefore not obeyed in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgsError {
    /// The first argument is not our version.
    Version {
        /// What stood there.
        found: String,
    },
    /// The second argument is not a stage.
    Stage {
        /// What stood there.
        found: String,
    },
    /// An argument that is not `--key=value` with a known key.
    UnknownKey {
        /// The argument.
        argument: String,
    },
    /// A key that was given before.
    RepeatedKey {
        /// The key.
        key: String,
    },
    /// A key that was not given.
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A value that does not parse.
    Value {
        /// Its key.
        key: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The parts of the quota disagree.
    Quota(QuotaError),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(
                f,
                "hook command line version {found:?}: expected {VERSION}; generate the CDI spec again with this version of vgpu"
            ),
            Self::Stage { found } => write!(
                f,
                "hook stage {found:?}: expected one of create-runtime, create-container, poststop"
            ),
            Self::UnknownKey { argument } => write!(
                f,
                "hook argument {argument:?}: expected --key=value with one of the keys {}",
                KEYS.join(", ")
            ),
            Self::RepeatedKey { key } => {
                write!(f, "hook argument --{key}: expected once, given again")
            }
            Self::MissingKey { key } => write!(f, "hook argument --{key}: expected, not given"),
            Self::Value { key, source } => write!(f, "hook argument --{key}: {source}"),
            Self::Quota(error) => write!(f, "hook arguments carry {error}"),
        }
    }
}

impl std::error::Error for ArgsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> HookArgs {
        HookArgs {
            gpu_uuid: "GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab".parse().unwrap(),
            gpu_capacity: Bytes(150_323_855_360),
            quota: Quota {
                vram_limit: Bytes(37_580_963_840),
                vram_request: Bytes(1_048_576),
                compute_limit: Percent::new(25).unwrap(),
                compute_request: Percent::new(10).unwrap(),
                qos: QosClass::Medium,
            },
            backend: Backend::Limiter,
            device: "gpu0-quarter".to_owned(),
            oversubscription_percent: 100,
            context_footprint: Bytes::mib(512),
            run_dir: "/run/vgpu".to_owned(),
            limiter_dir: "/usr/lib/vgpu".to_owned(),
        }
    }

    /// The frozen text: this test may gain a version beside it, and never changes.
    #[test]
    fn v1_is_frozen() {
        assert_eq!(
            sample().to_args(Stage::CreateRuntime),
            [
                "vgpu-hook",
                "v1",
                "create-runtime",
                "--gpu-uuid=GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab",
                "--gpu-capacity=150323855360",
                "--vram-limit=37580963840",
                "--vram-request=1048576",
                "--compute-limit=25",
                "--compute-request=10",
                "--qos=medium",
                "--back-end=limiter",
                "--device=gpu0-quarter",
                "--oversubscription-percent=100",
                "--context-footprint=536870912",
                "--run-dir=/run/vgpu",
                "--limiter-dir=/usr/lib/vgpu",
            ]
        );
    }

    #[test]
    fn every_stage_round_trips_in_any_order_of_keys() {
        for stage in Stage::ALL {
            let mut args = sample().to_args(stage);
            assert_eq!(HookArgs::parse(&args), Ok((stage, sample())));
            args[3..].reverse();
            assert_eq!(HookArgs::parse(&args), Ok((stage, sample())));
        }
    }

    #[test]
    fn every_key_is_needed_once() {
        for (at, key) in KEYS.into_iter().enumerate() {
            let mut args = sample().to_args(Stage::Poststop);
            let taken = args.remove(3 + at);
            let missing = HookArgs::parse(&args).unwrap_err();
            assert_eq!(missing, ArgsError::MissingKey { key });
            args.extend([taken.clone(), taken]);
            let twice = HookArgs::parse(&args).unwrap_err();
            assert_eq!(
                twice,
                ArgsError::RepeatedKey {
                    key: key.to_owned()
                }
            );
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let with = |at: usize, word: &str| {
            let mut args = sample().to_args(Stage::CreateRuntime);
            args[at] = word.to_owned();
            HookArgs::parse(&args).unwrap_err().to_string()
        };
        for (at, word, expected) in [
            (1, "v2", "expected v1"),
            (2, "prestart", "create-runtime, create-container, poststop"),
            (3, "--gpu_uuid=x", "gpu-uuid, gpu-capacity"),
            (3, "extra", "--key=value"),
            (3, "--gpu-uuid", "--key=value"),
            (3, "--gpu-uuid=GPU-1", "8-4-4-4-12"),
            (
                4,
                "--gpu-capacity=4Gi",
                "character 2: expected plain decimal digits",
            ),
            (4, "--gpu-capacity=", "expected plain decimal digits"),
            (5, "--vram-limit=0", "at least 1 MiB"),
            (6, "--vram-request=37580963841", "at most the limit"),
            (7, "--compute-limit=101", "0 to 100"),
            (7, "--compute-limit=300", "in range"),
            (7, "--compute-limit=5", "compute request of 10%"),
            (9, "--qos=best", "low, medium, high, critical"),
            (10, "--back-end=mps", "expected limiter"),
            (11, "--device=a/b", "letters, digits"),
            (14, "--run-dir=run", "absolute path"),
            (14, "--run-dir=/run/../etc", "without '..'"),
        ] {
            let error = with(at, word);
            assert!(error.contains(expected), "{word}: {error}");
        }
        let none: [&str; 0] = [];
        assert!(
            HookArgs::parse(&none)
                .unwrap_err()
                .to_string()
                .contains("expected v1")
        );
    }

    proptest! {
        #[test]
        fn any_quota_round_trips(
            uuid: [u8; 16],
            limit in 1_u64..,
            share in 0_u8..=100,
            qos in 0_u8..4,
            footprint: u64,
            ratio: u32,
            device in "[a-z0-9]([a-z0-9:._-]{0,10}[a-z0-9])?",
        ) {
            let args = HookArgs {
                gpu_uuid: DeviceUuid::from_bytes(uuid),
                gpu_capacity: Bytes(limit),
                quota: Quota::new(Bytes(limit), Percent::new(share).unwrap(), QosClass::from_u8(qos).unwrap()),
                device,
                oversubscription_percent: ratio,
                context_footprint: Bytes(footprint),
                ..sample()
            };
            prop_assert_eq!(HookArgs::parse(&args.to_args(Stage::CreateContainer)), Ok((Stage::CreateContainer, args)));
        }

        #[test]
        fn no_command_line_panics(words in proptest::collection::vec("(--)?[a-z-]{0,16}=?.{0,8}", 0..20)) {
            prop_assert!(HookArgs::parse(&words).is_err());
        }
    }
}
