//! Which of the node's GPUs are offered.

use std::fmt;

use crate::{DeviceUuid, ParseError};

/// Picks GPUs: one that any of `include` names and none of `exclude`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFilter {
    /// What is offered; everything by default.
    pub include: Vec<GpuSelector>,
    /// What is taken away from it.
    pub exclude: Vec<GpuSelector>,
}

impl Default for GpuFilter {
    fn default() -> Self {
        Self {
            include: vec![GpuSelector::Model("*".to_owned())],
            exclude: Vec::new(),
        }
    }
}

impl GpuFilter {
    /// Whether the GPU with NVML index `index`, identity `uuid` and model `model` is offered.
    #[must_use]
    pub fn admits(&self, index: u32, uuid: DeviceUuid, model: &str) -> bool {
        let named = |list: &[GpuSelector]| list.iter().any(|s| s.matches(index, uuid, model));
        named(&self.include) && !named(&self.exclude)
    }
}

/// One entry of `include` or `exclude`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuSelector {
    /// One GPU, for good.
    Uuid(DeviceUuid),
    /// The GPU with this NVML index.
    Index(u32),
    /// GPUs whose model name fits this glob: `*` is any text, `?` any character; case is ignored.
    Model(String),
}

impl GpuSelector {
    /// Reads one entry: digits are an index, `GPU-` or `MIG-` begins a UUID, anything else is a glob.
    ///
    /// # Errors
    /// [`ParseError`] ← an empty text, a broken UUID, or an index that is too large.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new(
                "GPU",
                text,
                0,
                "a UUID, an index or a glob over models",
            ));
        }
        if text.starts_with("GPU-") || text.starts_with("MIG-") {
            return text.parse().map(Self::Uuid);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let index = text
                .parse()
                .map_err(|_| ParseError::new("GPU index", text, 0, "a number below 4294967296"))?;
            return Ok(Self::Index(index));
        }
        Ok(Self::Model(text.to_owned()))
    }

    /// Whether this entry names the GPU.
    #[must_use]
    pub fn matches(&self, index: u32, uuid: DeviceUuid, model: &str) -> bool {
        match self {
            Self::Uuid(wanted) => *wanted == uuid,
            Self::Index(wanted) => *wanted == index,
            Self::Model(glob) => {
                let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
                glob_matches(&lower(glob), &lower(model))
            }
        }
    }
}

impl fmt::Display for GpuSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Index(index) => index.fmt(f),
            Self::Model(glob) => f.pad(glob),
        }
    }
}

/// Greedy matching with one point of return, so that no glob takes exponential time.
fn glob_matches(glob: &[char], text: &[char]) -> bool {
    let (mut g, mut t) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                retry = Some((g, t));
                g = g.saturating_add(1);
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                g = g.saturating_add(1);
                t = t.saturating_add(1);
            }
            _ => {
                let Some((star, from)) = retry else {
                    return false;
                };
                retry = Some((star, from.saturating_add(1)));
                g = star.saturating_add(1);
                t = from.saturating_add(1);
            }
        }
    }
    glob.get(g..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: DeviceUuid = DeviceUuid::from_bytes([1; 16]);

    #[test]
    fn globs() {
        for (glob, model, fits) in [
            ("*", "NVIDIA H200", true),
            ("*", "", true),
            ("*H200", "NVIDIA H200", true),
            ("nvidia h*", "NVIDIA H200", true),
            ("*H?00*", "NVIDIA H200 NVL", true),
            ("H200", "NVIDIA H200", false),
            ("*A100*", "NVIDIA H200", false),
            ("?", "", false),
            ("**a**a**", "aaaa", true),
        ] {
            let selector = GpuSelector::parse(glob).unwrap();
            assert_eq!(selector.matches(0, UUID, model), fits, "{glob} {model}");
        }
    }

    #[test]
    fn a_hostile_glob_ends() {
        let selector = GpuSelector::Model("*a".repeat(2_000));
        assert!(!selector.matches(0, UUID, &"a".repeat(1_999)));
    }

    #[test]
    fn exclusion_wins() {
        let parse = |list: &[&str]| {
            list.iter()
                .map(|s| GpuSelector::parse(s).unwrap())
                .collect()
        };
        let filter = GpuFilter {
            include: parse(&["*H200*"]),
            exclude: parse(&["1"]),
        };
        assert!(filter.admits(0, UUID, "NVIDIA H200"));
        assert!(!filter.admits(1, UUID, "NVIDIA H200"));
        assert!(!filter.admits(0, UUID, "NVIDIA L4"));
        let filter = GpuFilter {
            include: parse(&[&UUID.to_string()]),
            exclude: Vec::new(),
        };
        assert!(filter.admits(9, UUID, "anything"));
    }

    #[test]
    fn a_broken_uuid_is_not_a_glob() {
        let error = GpuSelector::parse("GPU-12").unwrap_err().to_string();
        assert!(error.contains("8-4-4-4-12"), "{error}");
        assert!(GpuSelector::parse("").is_err());
        assert!(GpuSelector::parse("99999999999").is_err());
    }
}
