//! NumPy's `.npy`, version 1.0: a header in text, then the numbers.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use tempfile::NamedTempFile;

/// The header of an array of little-endian f32 in C order.
fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one is written with a comma.
    let sizes = sizes.join(", ") + if shape.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Ten bytes come before it, and a line break ends it, at a multiple of 64.
    let len = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', len - 1 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((len as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

enum Target {
    /// A regular file, which gets its name when it is complete.
    Named(BufWriter<NamedTempFile>),
    /// A device or a pipe, which must not be replaced.
    InPlace(BufWriter<File>),
}

/// Why a file cannot be written, and what to do.
pub fn write_error(path: &Path, error: &io::Error) -> anyhow::Error {
    let (name, kind) = (path.display(), error.kind());
    match kind {
        io::ErrorKind::NotFound => anyhow!("{name}: there is no such folder; create it first"),
        io::ErrorKind::StorageFull => anyhow!("{name}: the disk is full; make room"),
        _ => anyhow!("{name}: cannot be written, {kind}; choose another place"),
    }
}

/// Writes an array row by row.
pub struct NpyWriter {
    path: PathBuf,
    target: Target,
}

impl NpyWriter {
    /// Begins a file of this shape.
    pub fn create(path: &Path, shape: &[usize]) -> io::Result<Self> {
        let in_place = std::fs::metadata(path).is_ok_and(|kind| !kind.is_file());
        let mut target = if in_place {
            Target::InPlace(BufWriter::new(OpenOptions::new().write(true).open(path)?))
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut builder = tempfile::Builder::new();
            builder.prefix(".pocketgpt-").suffix(".npy.tmp");
            // Temporary files are private otherwise; the umask still applies.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
            Target::Named(BufWriter::new(file))
        };
        target.writer().write_all(&header(shape))?;
        Ok(Self { path: path.into(), target })
    }

    /// Adds numbers.
    pub fn write(&mut self, numbers: &[f32]) -> io::Result<()> {
        let out = self.target.writer();
        numbers.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
    }

    /// Ends the file and gives it its name.
    pub fn finish(self) -> io::Result<()> {
        match self.target {
            Target::InPlace(mut file) => file.flush(),
            Target::Named(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error)?.persist(self.path)?;
                Ok(())
            }
        }
    }
}

impl Target {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Named(file) => file,
            Self::InPlace(file) => file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_what_numpy_expects() {
        for (shape, text) in [(&[5][..], "(5,)"), (&[2, 3], "(2, 3)")] {
            let bytes = header(shape);
            assert!(bytes.len().is_multiple_of(64) && bytes.ends_with(b" \n"));
            assert_eq!(usize::from(bytes[8]) + 10, bytes.len());
            let found = std::str::from_utf8(&bytes[10..]).unwrap();
            assert!(found.contains(&format!("'shape': {text}, }}")), "{found}");
        }
    }
}
