//! Reading a file back with the runtime's own reader.

use std::path::Path;

use pocketgpt_runtime::format::{MappedFile, WeightFile};

use crate::error::ConvertError;

/// Proves header and directory of the file at `written`, as every program does that opens it;
/// `name` is how errors call it. With `thorough`, everything is read and checked.
///
/// # Errors
/// If it cannot be read, or the first rule of the format that is broken.
pub fn check(written: &Path, name: &Path, thorough: bool) -> Result<(), ConvertError> {
    let map = MappedFile::open(written).map_err(ConvertError::io("read", name))?;
    let format = |source| ConvertError::Format { path: name.into(), source };
    let file = WeightFile::new(map.bytes()).map_err(format)?;
    if thorough { file.verify().map_err(format) } else { Ok(()) }
}
