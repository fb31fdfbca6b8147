//! What a vGPU is granted, and by which means it is enforced.

use std::fmt;
use std::str::FromStr;

use crate::{Bytes, ParseError, Percent, QosClass};

/// What one vGPU was granted on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The most VRAM it may hold. **Units:** bytes.
    pub vram_limit: Bytes,
    /// The VRAM it is guaranteed, at most the limit. **Units:** bytes.
    pub vram_request: Bytes,
    /// The largest share of one GPU's time; 100 is no limit. **Units:** percent.
    pub compute_limit: Percent,
    /// The share of the GPU's time it is guaranteed, at most the limit. **Units:** percent.
    pub compute_request: Percent,
    /// Who is served first.
    pub qos: QosClass,
}

impl Quota {
    /// A quota whose guaranteed part is all of it.
    #[must_use]
    pub const fn new(vram: Bytes, compute: Percent, qos: QosClass) -> Self {
        Self {
            vram_limit: vram,
            vram_request: vram,
            compute_limit: compute,
            compute_request: compute,
            qos,
        }
    }

    /// Says whether the parts agree with each other.
    ///
    /// # Errors
    /// [`QuotaError`] ← no VRAM at all, or a guaranteed part larger than the limit.
    pub fn check(&self) -> Result<(), QuotaError> {
        if self.vram_limit == Bytes::ZERO {
            return Err(QuotaError::NoVram);
        }
        if self.vram_request > self.vram_limit {
            return Err(QuotaError::VramRequest {
                request: self.vram_request,
                limit: self.vram_limit,
            });
        }
        if self.compute_request > self.compute_limit {
            return Err(QuotaError::ComputeRequest {
                request: self.compute_request,
                limit: self.compute_limit,
            });
        }
        Ok(())
    }
}

/// A quota that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaError {
    /// The VRAM limit is zero.
    NoVram,
    /// More VRAM is guaranteed than allowed.
    VramRequest {
        /// The guaranteed part.
        request: Bytes,
        /// The most it may hold.
        limit: Bytes,
    },
    /// More compute is guaranteed than allowed.
    ComputeRequest {
        /// The guaranteed part.
        request: Percent,
        /// The largest share.
        limit: Percent,
    },
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVram => write!(f, "a VRAM limit of 0 bytes: expected at least 1 MiB"),
            Self::VramRequest { request, limit } => write!(
                f,
                "a VRAM request of {} bytes: expected at most the limit, {} bytes",
                request.0, limit.0
            ),
            Self::ComputeRequest { request, limit } => {
                write!(
                    f,
                    "a compute request of {request}: expected at most the limit, {limit}"
                )
            }
        }
    }
}

impl std::error::Error for QuotaError {}

/// By which means a quota is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The two libraries in front of the driver, inside the container.
    #[default]
    Limiter,
}

impl Backend {
    /// The name, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limiter => "limiter",
        }
    }
}

impl FromStr for Backend {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        match input {
            "limiter" => Ok(Self::Limiter),
            _ => Err(ParseError::new("back-end", input, 0, "limiter")),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guaranteed_part_fits_in_the_limit() {
        let quota = Quota::new(Bytes::mib(4), Percent::FULL, QosClass::default());
        assert_eq!(quota.check(), Ok(()));
        let more = Quota {
            vram_request: Bytes::mib(5),
            ..quota
        };
        let text = more.check().unwrap_err().to_string();
        assert!(
            text.contains("5242880") && text.contains("4194304"),
            "{text}"
        );
        let more = Quota {
            compute_limit: Percent::ZERO,
            ..quota
        };
        assert!(more.check().unwrap_err().to_string().contains("100%"));
        let none = Quota {
            vram_limit: Bytes::ZERO,
            vram_request: Bytes::ZERO,
            ..quota
        };
        assert_eq!(none.check(), Err(QuotaError::NoVram));
    }

    #[test]
    fn the_back_end_round_trips() {
        assert_eq!(Backend::Limiter.to_string().parse(), Ok(Backend::Limiter));
        assert!(
            "mps"
                .parse::<Backend>()
                .unwrap_err()
                .to_string()
                .contains("limiter")
        );
    }
}
