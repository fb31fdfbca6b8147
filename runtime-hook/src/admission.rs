//! Whether a GPU has room for one more vGPU.
//!
//! Pure: sums over the grants that still hold, no files and no clock. Counts the guaranteed part (the VRAM request)
//! and never the limit, which may be larger.

use thiserror::Error;
use vgpu_core::Bytes;
use vgpu_core::hook_args::HookArgs;

use crate::grant::Grant;

/// Why a vGPU is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AdmissionError {
    /// The GPU has too little left.
    #[error(
        "no room on {gpu} for {device}: it asks {asked}, {free} of {budget} is left; held by {holders}"
    )]
    Full {
        /// The GPU's UUID.
        gpu: String,
        /// The device that was asked for.
        device: String,
        /// Its guaranteed part.
        asked: Bytes,
        /// What is left.
        free: Bytes,
        /// What may be promised in sum.
        budget: Bytes,
        /// Who has the rest: containers, devices, bytes.
        holders: Holders,
    },
    /// The quota is larger than the whole GPU.
    #[error("{device} allows {asked} on {gpu}, which has {capacity}; expected at most that")]
    TooLarge {
        /// The GPU's UUID.
        gpu: String,
        /// The device that was asked for.
        device: String,
        /// Its limit.
        asked: Bytes,
        /// What the GPU has.
        capacity: Bytes,
    },
}

/// Who holds how much of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<(String, String, Bytes)>);

impl std::fmt::Display for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A line that an engine shows must not grow with the node.
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        for (i, (container, device, bytes)) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{container} ({device}, {bytes})")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Says whether `args` fits beside what `held` has; `own` is the key of the container that asks, whose device of the
/// same name on the same GPU, if it has it already, is not counted twice.
///
/// # Errors
/// [`AdmissionError`] with everything that was compared.
pub fn admit(args: &HookArgs, held: &[Grant], own: &str) -> Result<(), AdmissionError> {
    let gpu = args.gpu_uuid.to_string();
    if args.quota.vram_limit > args.gpu_capacity {
        return Err(AdmissionError::TooLarge {
            gpu,
            device: args.device.clone(),
            asked: args.quota.vram_limit,
            capacity: args.gpu_capacity,
        });
    }
    let budget = budget(args);
    let mut holders = Holders::default();
    let mut taken = 0_u64;
    for grant in held {
        for (key, device) in &grant.devices {
            let again = grant.key == own && key.name == args.device;
            if device.gpu_uuid != gpu || again {
                continue;
            }
            taken = taken.saturating_add(device.vram_request_bytes);
            let bytes = Bytes(device.vram_request_bytes);
            holders.0.push((title(grant), key.name.clone(), bytes));
        }
    }
    let free = Bytes(budget.get().saturating_sub(taken));
    if args.quota.vram_request <= free {
        return Ok(());
    }
    let (device, asked) = (args.device.clone(), args.quota.vram_request);
    Err(AdmissionError::Full {
        gpu,
        device,
        asked,
        free,
        budget,
        holders,
    })
}

/// What may be promised of a GPU in sum.
fn budget(args: &HookArgs) -> Bytes {
    let whole = u128::from(args.gpu_capacity.get());
    let share = whole.saturating_mul(u128::from(args.oversubscription_percent)) / 100;
    Bytes(u64::try_from(share).unwrap_or(u64::MAX))
}

fn title(grant: &Grant) -> String {
    let labels = &grant.labels;
    match (&labels.pod_namespace, &labels.pod_name) {
        (Some(namespace), Some(pod)) => format!("{} of {namespace}/{pod}", grant.short_id()),
        _ => grant.short_id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::{UUID, device, grant};
    use vgpu_core::{Backend, Percent, QosClass, Quota};

    const GIB: u64 = 1 << 30;

    fn ask(device: &str, vram: u64, percent: u32) -> HookArgs {
        HookArgs {
            gpu_uuid: UUID.parse().unwrap(),
            gpu_capacity: Bytes(100 * GIB),
            quota: Quota::new(Bytes(vram), Percent::FULL, QosClass::Medium),
            backend: Backend::Limiter,
            device: device.into(),
            oversubscription_percent: percent,
            context_footprint: Bytes(0),
            run_dir: "/r".into(),
            limiter_dir: "/l".into(),
        }
    }

    #[test]
    fn what_fits_is_let_in_to_the_last_byte() {
        let held = [grant(
            "one",
            &[("a", device(60 * GIB, 1)), ("b", device(20 * GIB, 1))],
        )];
        assert_eq!(admit(&ask("x", 20 * GIB, 100), &held, "other"), Ok(()));
        assert!(admit(&ask("x", 20 * GIB + 1, 100), &held, "other").is_err());
        assert_eq!(admit(&ask("x", 70 * GIB, 150), &held, "other"), Ok(()));
        let mut elsewhere = device(100 * GIB, 1);
        elsewhere.gpu_uuid = "GPU-00000000-0000-0000-0000-000000000002".into();
        assert_eq!(
            admit(&ask("x", GIB, 100), &[grant("c", &[("a", elsewhere)])], "o"),
            Ok(())
        );
    }

    #[test]
    fn the_same_device_of_the_same_container_counts_once() {
        let held = [grant("one", &[("a", device(60 * GIB, 1))])];
        assert_eq!(admit(&ask("a", 60 * GIB, 100), &held, &held[0].key), Ok(()));
        assert!(admit(&ask("b", 60 * GIB, 100), &held, &held[0].key).is_err());
        assert!(admit(&ask("a", 60 * GIB, 100), &held, "other").is_err());
    }

    #[test]
    fn a_refusal_names_who_holds_the_rest() {
        let mut pod = grant("0123456789abcdef", &[("gpu0-half", device(50 * GIB, 1))]);
        pod.labels.pod_name = Some("train-1".into());
        pod.labels.pod_namespace = Some("ml".into());
        let held = [
            pod,
            grant("plain", &[("gpu0-quarter", device(25 * GIB, 1))]),
        ];
        let text = admit(&ask("gpu0-half", 50 * GIB, 100), &held, "o")
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            format!(
                "no room on {UUID} for gpu0-half: it asks 50 GiB, 25 GiB of 100 GiB is left; held by \
                 0123456789ab of ml/train-1 (gpu0-half, 50 GiB), plain (gpu0-quarter, 25 GiB)"
            )
        );
        let many: Vec<_> = (0..20)
            .map(|i| grant(&format!("c{i}"), &[("d", device(5 * GIB, 1))]))
            .collect();
        let text = admit(&ask("x", GIB, 100), &many, "o")
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("and 12 more"), "{text}");
        let text = admit(&ask("x", 101 * GIB, 100), &[], "o")
            .unwrap_err()
            .to_string();
        assert!(text.contains("allows 101 GiB on GPU-"), "{text}");
    }
}
