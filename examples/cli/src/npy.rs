//! NumPy's `.npy`, version 1.0: a header in text, then the numbers.

use std::path::Path;

use anyhow::Result;

use crate::outfile::OutFile;

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

/// Writes an array row by row.
#[derive(Debug)]
pub struct NpyWriter(OutFile);

impl NpyWriter {
    /// Begins a file of this shape.
    pub fn create(path: &Path, shape: &[usize]) -> Result<Self> {
        let mut file = OutFile::create(path)?;
        file.write(&header(shape))?;
        Ok(Self(file))
    }

    /// Adds numbers.
    pub fn write(&mut self, numbers: &[f32]) -> Result<()> {
        numbers.iter().try_for_each(|x| self.0.write(&x.to_le_bytes()))
    }

    /// Ends the file and gives it its name.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
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
