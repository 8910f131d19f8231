//! Why nothing could be generated.

use core::fmt;

use crate::decoding::DecodingError;
use crate::error::CapacityError;

/// Generation is impossible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GenerateError {
    /// Something does not fit.
    Capacity(CapacityError),
    /// No token can be chosen.
    Decoding(DecodingError),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(error) => error.fmt(f),
            Self::Decoding(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GenerateError {}

impl From<CapacityError> for GenerateError {
    fn from(error: CapacityError) -> Self {
        Self::Capacity(error)
    }
}

impl From<DecodingError> for GenerateError {
    fn from(error: DecodingError) -> Self {
        Self::Decoding(error)
    }
}
