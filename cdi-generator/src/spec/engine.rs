//! Container engines and the newest CDI version that each release accepts.
//!
//! An engine refuses a whole file whose version or field it does not know, and most say no more than "unresolvable CDI
//! devices"; so `vgpu cdi validate --for` says it beforehand. **Source:** the CDI library in each release's `go.mod`;
//! podman 4.3 was tried: it accepts 0.5.0 and no newer version.

use std::fmt;
use std::str::FromStr;

use vgpu_core::ParseError;

use super::Version;

/// A release of a container engine, `podman@4.3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    name: &'static str,
    release: Release,
    accepts: Version,
}

type Release = [u16; 3];

/// Since which release an engine accepts which version, oldest first.
type Row = (&'static str, &'static [(Release, Version)]);

const ENGINES: &[Row] = &[
    (
        "podman",
        &[
            ([4, 1, 0], Version::V0_4),
            ([4, 3, 0], Version::V0_5),
            ([4, 9, 0], Version::V0_6),
            ([5, 2, 0], Version::V0_8),
            ([5, 6, 0], Version::V1_0),
        ],
    ),
    (
        "docker",
        &[
            ([25, 0, 0], Version::V0_6),
            ([26, 1, 0], Version::V0_7),
            ([27, 5, 0], Version::V0_8),
            ([28, 2, 0], Version::V1_0),
            ([29, 0, 0], Version::V1_1),
        ],
    ),
    (
        "containerd",
        &[
            ([1, 7, 0], Version::V0_5),
            ([1, 7, 13], Version::V0_6),
            ([1, 7, 20], Version::V0_7),
            ([1, 7, 27], Version::V0_8),
            ([2, 1, 0], Version::V1_0),
            ([2, 3, 0], Version::V1_1),
        ],
    ),
    (
        "crio",
        &[
            ([1, 24, 0], Version::V0_3),
            ([1, 26, 0], Version::V0_5),
            ([1, 28, 0], Version::V0_6),
            ([1, 30, 0], Version::V0_7),
            ([1, 32, 0], Version::V0_8),
            ([1, 34, 0], Version::V1_0),
            ([1, 36, 0], Version::V1_1),
        ],
    ),
    (
        "nerdctl",
        &[([2, 1, 0], Version::V1_0), ([2, 3, 5], Version::V1_1)],
    ),
];

impl Engine {
    /// The newest version of the format that this release accepts.
    #[must_use]
    pub const fn accepts(&self) -> Version {
        self.accepts
    }
}

/// `4`, `4.3` or `4.3.1`, with or without a leading `v`.
fn parse_release(text: &str) -> Option<Release> {
    let mut release = [0; 3];
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    for (slot, part) in release.iter_mut().zip(parts.by_ref()) {
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(release)
}

fn dotted(release: Release) -> String {
    let [major, minor, patch] = release;
    if patch == 0 {
        format!("{major}.{minor}")
    } else {
        format!("{major}.{minor}.{patch}")
    }
}

impl FromStr for Engine {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        let fail = |at, expected: String| ParseError::new("engine", input, at, expected);
        let names = || {
            ENGINES
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (name, release) = input.split_once('@').ok_or_else(|| {
            fail(
                input.len(),
                "engine@release, such as podman@4.3 or docker@25".to_owned(),
            )
        })?;
        // Kubernetes and people spell it both ways.
        let wanted = if name == "cri-o" { "crio" } else { name };
        let (name, rows) = ENGINES
            .iter()
            .find(|(known, _)| *known == wanted)
            .ok_or_else(|| fail(0, format!("one of {}", names())))?;
        let release_at = input.len().saturating_sub(release.len());
        let release = parse_release(release)
            .ok_or_else(|| fail(release_at, "a release such as 4.3 or 1.7.13".to_owned()))?;
        let row = rows.iter().rev().find(|(since, _)| *since <= release);
        let accepts = row.map(|(_, version)| *version).ok_or_else(|| {
            let first = rows
                .first()
                .map(|(since, _)| dotted(*since))
                .unwrap_or_default();
            fail(
                release_at,
                format!("{first} or newer: older releases of {name} know no CDI"),
            )
        })?;
        Ok(Self {
            name,
            release,
            accepts,
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.name, dotted(self.release)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_accepts_what_its_library_knows() {
        for (engine, version) in [
            ("podman@4.1", "0.4.0"),
            ("podman@4.3.1", "0.5.0"),
            ("podman@4.8", "0.5.0"),
            ("podman@5.8.2", "1.0.0"),
            ("docker@25", "0.6.0"),
            ("docker@v28.1.1", "0.8.0"),
            ("containerd@1.7.12", "0.5.0"),
            ("containerd@2.0", "0.8.0"),
            ("crio@1.28", "0.6.0"),
            ("cri-o@1.40", "1.1.0"),
            ("nerdctl@2.3.5", "1.1.0"),
        ] {
            assert_eq!(
                engine.parse::<Engine>().unwrap().accepts().to_string(),
                version,
                "{engine}"
            );
        }
    }

    #[test]
    fn refuses_with_what_is_known() {
        for (text, expected) in [
            ("podman", "engine@release"),
            ("rkt@1.0", "podman, docker, containerd, crio, nerdctl"),
            ("podman@new", "a release such as"),
            ("podman@4.3.1.2", "a release such as"),
            ("podman@", "a release such as"),
            ("docker@24", "25.0 or newer"),
            ("podman@4.0", "4.1 or newer"),
        ] {
            let error = text.parse::<Engine>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(text), "{error}");
        }
        assert_eq!(
            "podman@4.3.0".parse::<Engine>().unwrap().to_string(),
            "podman@4.3"
        );
    }

    #[test]
    fn the_table_is_in_order() {
        for (name, rows) in ENGINES {
            assert!(rows.is_sorted(), "{name}");
        }
    }
}
