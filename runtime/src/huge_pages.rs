//! Memory in huge pages, for weights and caches that are read from end to end for every token.
//!
//! A page cache in pieces of 4 KB, scattered over the memory of a machine that has been running
//! for a while, is read at two thirds of the speed of huge pages, sometimes at half.

use std::io::{self, Read};
use std::path::Path;

use crate::format::{addressable_len, open_regular};

/// Zeroed memory for which the system was asked for huge pages; it begins at a page.
///
/// Linux gives them where `/sys/kernel/mm/transparent_hugepage/enabled` is `madvise` or `always`.
/// Elsewhere this is ordinary memory. A page that was never touched takes no RAM.
#[derive(Debug)]
pub struct HugePages {
    memory: memmap2::MmapMut,
}

impl HugePages {
    /// Memory of `len` bytes.
    ///
    /// # Errors
    /// If there is not that much address space.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let memory = memmap2::MmapMut::map_anon(len)?;
        // Without huge pages it is slower, not wrong.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self { memory })
    }

    /// A copy of a file: unlike a map it stays whole when the file is changed or shortened.
    ///
    /// # Errors
    /// If the file cannot be read, is not a regular file, or there is not enough memory.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut file = open_regular(path)?;
        let mut copy = Self::zeroed(addressable_len(&file)?)?;
        file.read_exact(&mut copy.memory)?;
        Ok(copy)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_equals_its_file() {
        let path = std::env::temp_dir().join(std::format!("pocketgpt-huge-{}", std::process::id()));
        let bytes: std::vec::Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let copy = HugePages::read(&path);
        fs::remove_file(&path).unwrap();
        assert!(copy.unwrap().bytes() == bytes);
    }

    #[test]
    fn of_nothing_it_is_empty() {
        assert!(HugePages::zeroed(0).unwrap().bytes().is_empty());
    }

    #[test]
    fn refuses_what_is_no_file() {
        let error = HugePages::read(&std::env::temp_dir()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
