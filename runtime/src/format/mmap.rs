//! A weight file in the page cache.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

/// A read-only map of a file, for [`super::WeightFile::new`].
///
/// While it is mapped the file must not be changed in place: another process that shortens it
/// makes reads fail with a signal, and one that writes into it gives wrong numbers, or a panic.
/// `pocketgpt-quantize` never does either, it replaces files by renaming.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// If it cannot be opened or mapped, is not a regular file, or, on a machine of 32 bits, has
    /// 2 GB or more ([`io::ErrorKind::FileTooLarge`]).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        addressable_len(&file)?;
        // SAFETY: the map is read-only and private to this value; that the file is not changed
        // meanwhile is the documented condition on the caller, as for every map.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// The file's bytes; they begin at a page.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// The length of a file that is to be in memory as a whole.
///
/// # Errors
/// If there is no memory of that length on this machine.
pub(crate) fn addressable_len(file: &File) -> io::Result<usize> {
    let len = file.metadata()?.len();
    match isize::try_from(len) {
        Ok(len) => Ok(len as usize),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            std::format!(
                "it has {len} bytes, more than a {}-bit program can hold in memory",
                usize::BITS
            ),
        )),
    }
}

/// Opens a file to read all of it.
///
/// # Errors
/// If it cannot be opened, or is not a regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // Asked before opening: opening a FIFO waits for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}
