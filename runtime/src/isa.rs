//! Which instructions a set of kernels needs, and which this CPU has.

use core::fmt;
use core::str::FromStr;

/// An instruction set that kernels are written for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the specification.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI.
    Avx512Vnni,
    /// AArch64 as every 64-bit ARM CPU has it, little-endian: Cortex-A53, A72.
    Neon,
    /// AArch64 with dot products: Cortex-A55, A76.
    Dotprod,
    /// AArch64 with dot products and products of int8 matrices: Cortex-A510, A710.
    I8mm,
    /// x86-64 with AVX-512 as above and AMX for int8: Xeons since Sapphire Rapids, under Linux, with
    /// feature `std`. Last, since C programs know sets by their number.
    ///
    /// Linux gives its registers to a process that asks, and whoever looks for the fastest set
    /// ([`Isa::best`], [`Isa::available`]) asks where the CPU has them. It is for all threads and for good.
    /// In a thread that has used the registers, the frame of a signal takes 8 KB more, and its handler needs
    /// room behind that in the thread's alternate signal stack, if it has one. Rust's standard library (1.95)
    /// makes stacks of the frame alone: its message about a stack that overflows may be missing then, and
    /// SIGSEGV end the program. Who does not want that names another set.
    Amx,
}

impl Isa {
    /// Every instruction set, on any architecture.
    pub const ALL: [Self; 7] = [
        Self::Scalar,
        Self::Avx2,
        Self::Avx512Vnni,
        Self::Neon,
        Self::Dotprod,
        Self::I8mm,
        Self::Amx,
    ];

    /// Name for `--isa` and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Amx => "amx",
        }
    }

    /// Whether this CPU has the instructions. Without feature `std` only what the build's target
    /// features promise is known.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", feature = "std"))]
            Self::Avx2 => {
                std::is_x86_feature_detected!("avx2")
                    && std::is_x86_feature_detected!("fma")
                    && std::is_x86_feature_detected!("f16c")
            }
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", feature = "std"))]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(all(
                target_arch = "x86_64",
                target_pointer_width = "64",
                target_feature = "sse2",
                feature = "std"
            ))]
            Self::Amx => Self::Avx512Vnni.is_available() && crate::kernels::amx_is_available(),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(feature = "std")))]
            Self::Avx2 => {
                cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))
            }
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(feature = "std")))]
            Self::Avx512Vnni => cfg!(all(
                target_feature = "avx2",
                target_feature = "fma",
                target_feature = "f16c",
                target_feature = "avx512f",
                target_feature = "avx512bw",
                target_feature = "avx512vl",
                target_feature = "avx512dq",
                target_feature = "avx512vnni"
            )),
            // A build for AArch64 without it passes f32 in integer registers.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon => cfg!(target_feature = "neon"),
            #[cfg(all(target_arch = "aarch64", feature = "std"))]
            Self::Dotprod => {
                Self::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(all(target_arch = "aarch64", feature = "std"))]
            Self::I8mm => {
                Self::Dotprod.is_available() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            #[cfg(all(target_arch = "aarch64", not(feature = "std")))]
            Self::Dotprod => Self::Neon.is_available() && cfg!(target_feature = "dotprod"),
            #[cfg(all(target_arch = "aarch64", not(feature = "std")))]
            Self::I8mm => Self::Dotprod.is_available() && cfg!(target_feature = "i8mm"),
            // Those of other architectures.
            _ => false,
        }
    }

    /// The instruction sets of this CPU, slowest first.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest instruction set of this CPU.
    pub fn best() -> Self {
        Self::available().next_back().unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set, expected one of")?;
        Isa::ALL.iter().try_for_each(|isa| write!(f, " {isa}"))
    }
}

impl core::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or(UnknownIsa)
    }
}
