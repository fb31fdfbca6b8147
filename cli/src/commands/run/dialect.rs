//! The limits of other limiters' environment variables, as inputs of `vgpu run`.
//!
//! Owns their names' meaning and their values. A flag wins over all of them, and two that disagree are refused. They
//! end here: the command does not see them, the limiter reads none, so they can never loosen a container's quota.
//! Facts: HAMi-core `src/multiprocess/multiprocess_memory_limit.c`; TensorFusion's standalone limiter, whose values
//! are one number or a JSON object of numbers by GPU.

use std::fmt;

use serde_json::Value;
use vgpu_cdi::Gpu;
use vgpu_core::{Bytes, Percent, env};

/// What the variables ask for on one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) vram: Option<Bytes>,
    pub(super) compute: Option<Percent>,
}

/// Variables that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DialectError {
    /// A value is not one.
    Value {
        name: String,
        value: String,
        expected: &'static str,
    },
    /// Two of them say different things.
    Disagree {
        one: (String, String),
        other: (String, String),
        flag: &'static str,
    },
}

impl fmt::Display for DialectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value {
                name,
                value,
                expected,
            } => write!(f, "{name} is {value:?}: expected {expected}"),
            Self::Disagree { one, other, flag } => write!(
                f,
                "{}={} and {}={} disagree: unset one of them, or give {flag}",
                one.0, one.1, other.0, other.1
            ),
        }
    }
}

/// A variable's name, its text, and what it means.
type Said<T> = Option<(String, String, T)>;
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables that the flags leave something to: `vram` and `compute` say which quantities no flag has given.
pub(super) fn ask(
    read: Read<'_>,
    gpu: &Gpu,
    vram: bool,
    compute: bool,
) -> Result<Asked, DialectError> {
    let mut asked = Asked::default();
    if vram {
        let hami = hami(read, env::HAMI_MEMORY_LIMIT, gpu, SIZE, size)?;
        let fusion = fusion(read, env::TENSOR_FUSION_MEMORY_LIMIT, gpu, BYTES, |n| {
            Some(Bytes(n))
        })?;
        asked.vram = agree(hami, fusion, "--vram")?;
    }
    if compute {
        let hami = hami(read, env::HAMI_SM_LIMIT, gpu, SHARE, |text| {
            text.parse().ok()
        })?;
        let percent = |n: u64| Percent::new(u8::try_from(n).ok()?);
        let fusion = fusion(read, env::TENSOR_FUSION_COMPUTE_LIMIT, gpu, SHARE, percent)?;
        asked.compute = agree(hami, fusion, "--compute")?;
    }
    Ok(asked)
}

/// Whether a variable is one of theirs.
pub(super) fn owns(name: &str) -> bool {
    let indexed = |base: &str| {
        let rest = name.strip_prefix(base);
        rest.is_some_and(|r| r.is_empty() || r.starts_with('_'))
    };
    let fusion = [
        env::TENSOR_FUSION_MEMORY_LIMIT,
        env::TENSOR_FUSION_COMPUTE_LIMIT,
    ];
    indexed(env::HAMI_MEMORY_LIMIT) || indexed(env::HAMI_SM_LIMIT) || fusion.contains(&name)
}

const SIZE: &str = "bytes, or a number with k, m or g (binary), such as 1024m";
const BYTES: &str = "bytes, or a JSON object of bytes by GPU index or UUID";
const SHARE: &str = "a percentage from 0 to 100";

/// `<base>_<index>`, else `<base>`; 0 means no limit there.
fn hami<T: Default + PartialEq>(
    read: Read<'_>,
    base: &str,
    gpu: &Gpu,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Said<T>, DialectError> {
    for name in [format!("{base}_{}", gpu.index), base.to_owned()] {
        let Some(text) = read(&name).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        let Some(value) = parse(text.trim()) else {
            return Err(DialectError::Value {
                name,
                value: text,
                expected,
            });
        };
        if value != T::default() {
            return Ok(Some((name, text, value)));
        }
    }
    Ok(None)
}

/// `1g`, `1024m`, `4096K`, bytes.
fn size(text: &str) -> Option<Bytes> {
    let (digits, shift) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (text.get(..text.len().checked_sub(1)?)?, 10),
        'm' => (text.get(..text.len().checked_sub(1)?)?, 20),
        'g' => (text.get(..text.len().checked_sub(1)?)?, 30),
        _ => (text, 0),
    };
    let digits = Some(digits).filter(|d| d.bytes().all(|c| c.is_ascii_digit()))?;
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).map(Bytes)
}

/// One number for every GPU, or an object that may say nothing of this one.
fn fusion<T>(
    read: Read<'_>,
    name: &str,
    gpu: &Gpu,
    expected: &'static str,
    parse: impl Fn(u64) -> Option<T>,
) -> Result<Said<T>, DialectError> {
    let Some(text) = read(name).filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let name = name.to_owned();
    let number = match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => match map.into_iter().find(|(key, _)| is_gpu(key, gpu)) {
            None => return Ok(None),
            Some((_, value)) => whole(&value),
        },
        Ok(value) => whole(&value),
        Err(_) => None,
    };
    match number.and_then(parse) {
        Some(value) => Ok(Some((name, text, value))),
        None => Err(DialectError::Value {
            name,
            value: text,
            expected,
        }),
    }
}

fn whole(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

fn is_gpu(key: &str, gpu: &Gpu) -> bool {
    key == gpu.index.to_string() || key.eq_ignore_ascii_case(&gpu.uuid.to_string())
}

fn agree<T: PartialEq>(
    one: Said<T>,
    other: Said<T>,
    flag: &'static str,
) -> Result<Option<T>, DialectError> {
    match (one, other) {
        (Some(one), Some(other)) if one.2 != other.2 => Err(DialectError::Disagree {
            one: (one.0, one.1),
            other: (other.0, other.1),
            flag,
        }),
        (one, other) => Ok(one.or(other).map(|said| said.2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> Gpu {
        Gpu {
            index: 1,
            uuid: "GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab".parse().unwrap(),
            name: "A".to_owned(),
            vram: Bytes(8 << 30),
            reserved: Bytes(0),
            minor: 1,
            pci_bus_id: None,
            dri_nodes: Vec::new(),
        }
    }

    fn with(set: &[(&str, &str)]) -> Result<Asked, DialectError> {
        let read = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ask(&read, &gpu(), true, true)
    }

    fn vram(set: &[(&str, &str)]) -> Option<u64> {
        with(set).unwrap().vram.map(Bytes::get)
    }

    #[test]
    fn sizes_are_read_as_the_other_limiter_reads_them() {
        for (text, bytes) in [
            ("1g", Some(1 << 30)),
            ("1024m", Some(1 << 30)),
            ("3000M", Some(3000 << 20)),
            ("4096K", Some(4 << 20)),
            ("1073741824", Some(1 << 30)),
            ("0", None),
            ("0m", None),
            ("", None),
        ] {
            assert_eq!(vram(&[("CUDA_DEVICE_MEMORY_LIMIT", text)]), bytes, "{text}");
        }
        for text in ["g", "1x", "-1", "+1", "1 g", "99999999999g", "1gg", "µ"] {
            let error = with(&[("CUDA_DEVICE_MEMORY_LIMIT", text)]).unwrap_err();
            let line = error.to_string();
            assert!(line.starts_with("CUDA_DEVICE_MEMORY_LIMIT is "), "{line}");
        }
    }

    #[test]
    fn the_gpus_own_variable_comes_first() {
        let both = [
            ("CUDA_DEVICE_MEMORY_LIMIT", "1g"),
            ("CUDA_DEVICE_MEMORY_LIMIT_0", "3g"),
            ("CUDA_DEVICE_MEMORY_LIMIT_1", "2g"),
        ];
        assert_eq!(vram(&both), Some(2 << 30));
        assert_eq!(vram(&both[..2]), Some(1 << 30));
        let zero = [("CUDA_DEVICE_MEMORY_LIMIT_1", "0"), both[0]];
        assert_eq!(vram(&zero), Some(1 << 30));
    }

    #[test]
    fn one_number_or_one_by_gpu() {
        let by_uuid = r#"{"gpu-8F3A1C02-77de-4b1c-9a50-0123456789ab": "1073741824"}"#;
        for (text, bytes) in [
            ("1073741824", Some(1 << 30)),
            (r#"{"1": 1073741824, "0": 5}"#, Some(1 << 30)),
            (by_uuid, Some(1 << 30)),
            (r#"{"0": 5}"#, None),
        ] {
            assert_eq!(vram(&[("TENSOR_FUSION_CUDA_MEM_LIMIT", text)]), bytes);
        }
        for text in ["1g", "[1]", "{", "-4", "1.5", r#"{"1": null}"#] {
            let error = with(&[("TENSOR_FUSION_CUDA_MEM_LIMIT", text)]).unwrap_err();
            assert!(error.to_string().contains("a JSON object"), "{error}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        let share = |name, text| with(&[(name, text)]).map(|asked| asked.compute);
        assert_eq!(share("CUDA_DEVICE_SM_LIMIT", "30"), Ok(Percent::new(30)));
        assert_eq!(share("CUDA_DEVICE_SM_LIMIT", "0"), Ok(None));
        let fusion = "TENSOR_FUSION_CUDA_UP_LIMIT";
        assert_eq!(share(fusion, "30"), Ok(Percent::new(30)));
        assert!(share(fusion, "130").is_err());
        assert!(share("CUDA_DEVICE_SM_LIMIT", "130").is_err());
    }

    #[test]
    fn two_that_disagree_are_both_named() {
        let set = [
            ("CUDA_DEVICE_MEMORY_LIMIT", "1g"),
            ("TENSOR_FUSION_CUDA_MEM_LIMIT", "1073741824"),
        ];
        assert_eq!(vram(&set), Some(1 << 30));
        let other = [set[0], ("TENSOR_FUSION_CUDA_MEM_LIMIT", "5")];
        assert_eq!(
            with(&other).unwrap_err().to_string(),
            "CUDA_DEVICE_MEMORY_LIMIT=1g and TENSOR_FUSION_CUDA_MEM_LIMIT=5 disagree: unset one of them, or give --vram"
        );
        // What a flag has said is not even read.
        let read = |_: &str| Some("nonsense".to_owned());
        assert_eq!(ask(&read, &gpu(), false, false), Ok(Asked::default()));
    }

    #[test]
    fn only_their_names_are_taken_away() {
        for name in [
            "CUDA_DEVICE_MEMORY_LIMIT",
            "CUDA_DEVICE_MEMORY_LIMIT_3",
            "CUDA_DEVICE_SM_LIMIT",
            "TENSOR_FUSION_CUDA_UP_LIMIT",
        ] {
            assert!(owns(name), "{name}");
        }
        for name in ["CUDA_DEVICE_MEMORY_LIMITS", "CUDA_VISIBLE_DEVICES", "PATH"] {
            assert!(!owns(name), "{name}");
        }
    }
}
