//! A second reader, written from `docs/format.md`: offsets are spelled out and nothing of the
//! runtime's reader or packing is used.

/// A tensor as the directory has it.
pub struct Tensor {
    pub role: u16,
    pub layer: u16,
    pub encoding: u8,
    pub rows: usize,
    pub cols: usize,
    pub start: usize,
}

fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([file[at], file[at + 1]])
}

fn u32_at(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize
}

fn f32_at(file: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(file, at) as u32)
}

fn f16_at(file: &[u8], at: usize) -> f32 {
    let bits = u16_at(file, at);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// The directory of a file that is known to be correct.
pub fn tensors(file: &[u8]) -> Vec<Tensor> {
    assert_eq!(&file[..8], b"PGPT\x01\0\0\0");
    let directory = u32_at(file, 32);
    (0..u32_at(file, 112))
        .map(|i| directory + 64 * i)
        .map(|at| Tensor {
            role: u16_at(file, at),
            layer: u16_at(file, at + 2),
            encoding: file[at + 4],
            rows: u32_at(file, at + 8),
            cols: u32_at(file, at + 12),
            start: u32_at(file, at + 16),
        })
        .collect()
}

fn up_to_64(len: usize) -> usize {
    len.next_multiple_of(64)
}

impl Tensor {
    /// Vectors and `wpe` lie row after row, all else in records of 16 rows.
    fn is_tiled(&self) -> bool {
        matches!(self.role, 0 | 4 | 18 | 20 | 24 | 26)
    }

    /// The weight of an output row and an input.
    pub fn weight(&self, file: &[u8], row: usize, col: usize) -> f32 {
        if !self.is_tiled() {
            let at = row * self.cols + col;
            return match self.encoding {
                0 => f32_at(file, self.start + 4 * at),
                1 => f16_at(file, self.start + 2 * at),
                other => panic!("encoding {other} row after row"),
            };
        }
        let (record, lane) = (row / 16, row % 16);
        let groups = self.cols.div_ceil(32);
        let weights = 64 + up_to_64(16 * groups);
        let len = match self.encoding {
            0 => 64 * self.cols,
            1 => up_to_64(32 * self.cols),
            2 => weights + 512 * groups,
            3 => weights + 256 * groups,
            4 => weights + 192 * groups,
            other => panic!("encoding {other}"),
        };
        let record = self.start + record * len;
        let scale = |group: usize| file[record + 64 + 16 * group + lane];
        let row_scale = || f32_at(file, record + 4 * lane);
        match self.encoding {
            0 => f32_at(file, record + 4 * (16 * col + lane)),
            1 => f16_at(file, record + 2 * (16 * col + lane)),
            2 => {
                let q = file[record + weights + col / 4 * 64 + lane * 4 + col % 4] as i8;
                f32::from(q) * f32::from(scale(col / 32)) * row_scale()
            }
            3 => {
                let byte = file[record + weights + col / 8 * 64 + lane * 4 + col % 4];
                let nibble = if col % 8 < 4 { byte & 15 } else { byte >> 4 };
                (f32::from(nibble) - 8.0) * f32::from(scale(col / 32) as i8) * row_scale()
            }
            _ => {
                let group = record + weights + col / 32 * 192 + lane * 4 + col % 4;
                let shift = if col % 8 < 4 { 0 } else { 4 };
                let n = match col % 32 / 8 {
                    3 => (0..3).map(|i| (file[group + 64 * i] >> (shift + 3) & 1) << i).sum(),
                    tile => file[group + 64 * tile] >> shift & 7,
                };
                (f32::from(n) - 4.0) * f32::from(scale(col / 32) as i8) * row_scale()
            }
        }
    }

    /// All weights, `[rows][cols]`.
    pub fn weights(&self, file: &[u8]) -> Vec<f32> {
        (0..self.rows * self.cols)
            .map(|i| self.weight(file, i / self.cols, i % self.cols))
            .collect()
    }
}
