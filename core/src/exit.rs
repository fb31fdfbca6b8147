//! The exit codes of every vgpu program.

/// What a program says to its caller when it ends.
///
/// 2 is also what the argument parser answers, so a script sees one code for every kind of wrong command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Success,
    /// Something on this machine failed: a file, the driver, a mount.
    Failure,
    /// The command line or the configuration is wrong.
    Usage,
    /// What was examined has faults (`vgpu cdi validate`).
    Invalid,
    /// There is no driver or no GPU on this machine.
    NoDriver,
    /// The quota does not fit in what the GPU has left.
    Refused,
    /// The status of the program that was run on the caller's behalf (`vgpu run`).
    Child(u8),
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::NoDriver => 4,
            Self::Refused => 5,
            Self::Child(status) => status,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}
