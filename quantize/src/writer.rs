//! A `.pgpt` file that appears whole or not at all.
//!
//! Tensor data is streamed into a temporary file in the folder of the output; the prefix, whose
//! CRCs are known last, is written at the end, and then the file gets its name.

use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pocketgpt_runtime::format::encode::FileLayout;
use tempfile::NamedTempFile;

use crate::error::ConvertError;
use crate::source::folder_of;

/// Creates a file that is removed unless it is [`persist`]ed.
pub(crate) fn temporary(output: &Path) -> Result<NamedTempFile, ConvertError> {
    check_kind(output)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(".tmp");
    // Temporary files are private otherwise; the umask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(output)).map_err(|error| {
        // The system's own message names the temporary file, which nobody asked for.
        let cause = match error.kind() {
            ErrorKind::NotFound => "there is no such folder; create it first",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "its folder cannot be written to; choose another place"
            }
            _ => return ConvertError::io("create", output)(error),
        };
        ConvertError::Output { path: output.into(), cause }
    })
}

/// Whether a file could be made here, as far as that can be told without making one: for what is
/// written only after long work.
///
/// # Errors
/// If the path is a folder or a device, or there is no folder for the file.
pub fn check_place(output: &Path) -> Result<(), ConvertError> {
    check_kind(output)?;
    if !folder_of(output).is_dir() {
        let cause = "there is no such folder; create it first";
        return Err(ConvertError::Output { path: output.into(), cause });
    }
    Ok(())
}

/// A file gets its name by renaming, which would replace a device or a pipe.
fn check_kind(output: &Path) -> Result<(), ConvertError> {
    let cause = match std::fs::metadata(output) {
        Ok(kind) if kind.is_dir() => "this is a folder; give the name of a file",
        Ok(kind) if !kind.is_file() => "this is not a regular file; give the name of a file",
        _ => return Ok(()),
    };
    Err(ConvertError::Output { path: output.into(), cause })
}

/// Whether two paths name the same file, which need not exist.
pub fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let named = || Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(named)
    };
    real(a).is_some_and(|a| real(b) == Some(a))
}

/// Writes a small file that appears whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(output: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    let mut file = temporary(output)?;
    file.write_all(bytes).map_err(ConvertError::io("write", output))?;
    persist(file, output)
}

/// Makes the file durable and gives it its name, replacing what was there.
pub(crate) fn persist(file: NamedTempFile, output: &Path) -> Result<(), ConvertError> {
    file.as_file().sync_all().map_err(ConvertError::io("write", output))?;
    file.persist(output).map_err(|error| ConvertError::Io {
        action: "create",
        path: output.into(),
        source: error.error,
    })?;
    // The name is durable once its folder is; where folders cannot be opened this is all.
    #[cfg(unix)]
    if let Ok(folder) = std::fs::File::open(folder_of(output)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Writes tensors one after another.
pub struct Writer {
    layout: FileLayout,
    file: NamedTempFile,
    output: PathBuf,
    /// The tensor being written.
    index: usize,
    /// How much of it has been written, and the CRC of that.
    written: u64,
    crc: crc32fast::Hasher,
}

impl Writer {
    /// Begins a file.
    ///
    /// # Errors
    /// If nothing can be created in the output's folder.
    pub fn create(output: &Path, layout: FileLayout) -> Result<Self, ConvertError> {
        let mut file = temporary(output)?;
        file.seek(SeekFrom::Start(layout.data_offset()))
            .map_err(ConvertError::io("write", output))?;
        let (crc, output) = (crc32fast::Hasher::new(), output.into());
        Ok(Self { layout, file, output, index: 0, written: 0, crc })
    }

    /// Writes the next bytes of the tensor that is not complete yet, the first one first.
    ///
    /// # Panics
    /// If the bytes reach behind the tensor's end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        let entry = &mut self.layout.entries[self.index];
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        assert!(self.written <= entry.len, "more bytes than the tensor has");
        let mut result = self.file.write_all(bytes);
        if self.written == entry.len {
            entry.crc = std::mem::take(&mut self.crc).finalize();
            let end = entry.end();
            self.index += 1;
            self.written = 0;
            let next = self.layout.entries.get(self.index);
            let padding = next.map_or(self.layout.file_len(), |next| next.offset) - end;
            result = result.and_then(|()| self.file.write_all(&[0; 64][..padding as usize]));
        }
        result.map_err(ConvertError::io("write", &self.output))
    }

    /// Writes the prefix; `metadata` is padded with spaces to the length laid out. The file has
    /// all its bytes then, and not yet its name.
    ///
    /// # Panics
    /// If a tensor is missing, or the metadata is longer than was laid out.
    pub fn finish(
        mut self,
        tokenizer: &[u8],
        metadata: &str,
        metadata_len: usize,
    ) -> Result<NamedTempFile, ConvertError> {
        assert_eq!(self.index, self.layout.entries.len(), "a tensor is missing");
        assert!(metadata.len() <= metadata_len, "longer than laid out");
        let metadata = metadata.to_owned() + &" ".repeat(metadata_len - metadata.len());
        let prefix = self.layout.encode_prefix(tokenizer, &metadata);
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&prefix))
            .and_then(|()| self.file.flush())
            .map_err(ConvertError::io("write", &self.output))?;
        Ok(self.file)
    }
}
