//! The tile registers: how they are laid out, and what is done with them.
//!
//! The compiler has no stable intrinsics for them. It does not use them itself, nor does what it calls in
//! between (to copy or to clear memory), so that they stay configured and keep what is in them.

use core::arch::asm;

use crate::quant::tile::{GROUP, ROWS};

/// Rows of a register.
pub(super) const TILE: usize = 16;

/// A group's weights as `tdpbssd` takes them: four inputs of sixteen rows, eight times.
pub(super) type Unpacked = [[i8; 4 * ROWS]; GROUP / 4];

/// Tokens of a panel.
pub(super) const TOKENS: usize = 64;

/// Activations of one group.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Activations {
    pub(super) q: [[i8; GROUP]; TOKENS],
    pub(super) scales: [f32; TOKENS],
}

/// A group's products: sixteen tokens by sixteen rows of weights.
pub(super) type Products = [[i32; ROWS]; TILE];

/// The registers, while they are in use. Who no longer uses them should say so: the system saves what is
/// in them at each switch of threads otherwise.
pub(super) struct Tiles(());

/// What `ldtilecfg` reads (Intel, Software Developer's Manual, volume 1, chapter 18).
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Config>() == 64);

/// Registers 0 to 3 hold products, 4 and 5 activations, 6 and 7 weights.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 32, 32, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles {
    /// # Safety
    /// 1. The CPU has AMX, and the system lets this process use it.
    #[inline(always)]
    pub(super) unsafe fn configure() -> Self {
        // SAFETY: (1) see above; (2) 64 bytes are read, which are a configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(readonly, nostack, preserves_flags));
        }
        Self(())
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: (1) there is one where the registers were configured.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// Tiles of sixteen tokens, group by group and one behind the other, on their way through the registers.
///
/// That way is longer than it takes to scale a group's products. So there is always one group whose
/// products are stored, and there are two that are multiplied, while those of a fourth are scaled.
pub(super) struct Pipeline<'a> {
    panel: &'a [Activations],
    weights: &'a [Unpacked],
    products: &'a mut [Products; TURNS],
    tiles: usize,
    /// Tile and group to multiply next.
    next: (usize, usize),
    /// Whether the last step but one and the last one multiplied something.
    multiplied: [bool; 2],
    turn: usize,
}

/// Steps after which a register of products, and a place of products, is used again.
pub(super) const TURNS: usize = 4;

const _: () = assert!(Pipeline::DEPTH < TURNS);

impl<'a> Pipeline<'a> {
    /// Steps between a group's multiplication and the use of its products.
    pub(super) const DEPTH: usize = 3;

    /// The weights of some groups, and their panel, of which `tiles` tiles have tokens.
    ///
    /// # Panics
    /// If there are not as many groups of weights as of activations, or more tiles than fit.
    #[inline(always)]
    pub(super) fn new(
        panel: &'a [Activations],
        weights: &'a [Unpacked],
        products: &'a mut [Products; TURNS],
        tiles: usize,
    ) -> Self {
        assert!(panel.len() == weights.len() && tiles * TILE <= TOKENS);
        let multiplied = [false; 2];
        Self { panel, weights, products, tiles, next: (0, 0), multiplied, turn: 0 }
    }

    /// Multiplies the next group, if there is one, and returns the products of the one [`Self::DEPTH`]
    /// steps ago.
    ///
    /// # Safety
    /// 1. The registers are configured.
    #[inline(always)]
    pub(super) unsafe fn step(&mut self) -> &Products {
        let turn = self.turn;
        self.turn = (turn + 1) % TURNS;
        // Each turn has code of its own, since registers are part of instructions.
        // SAFETY: (1) see above.
        unsafe {
            match turn {
                0 => self.take_turn(0),
                1 => self.take_turn(1),
                2 => self.take_turn(2),
                _ => self.take_turn(3),
            }
        }
    }

    /// # Safety
    /// 1. The registers are configured.
    #[inline(always)]
    unsafe fn take_turn(&mut self, turn: usize) -> &Products {
        let (tile, group) = self.next;
        let [multiplied, last_multiplied] = self.multiplied;
        let multiplies = tile < self.tiles;
        // SAFETY: (1) see above.
        unsafe {
            if multiplied {
                let turn = (turn + TURNS - (Self::DEPTH - 1)) % TURNS;
                store(turn, &mut self.products[turn]);
            }
            if multiplies {
                let activations = &self.panel[group].q[tile * TILE..];
                let activations = activations.first_chunk().expect("a tile");
                multiply(turn, activations, &self.weights[group]);
            }
        }
        let is_last = group + 1 == self.panel.len();
        self.next = if is_last { (tile + 1, 0) } else { (tile, group + 1) };
        self.multiplied = [last_multiplied, multiplies];
        &self.products[(turn + TURNS - Self::DEPTH) % TURNS]
    }
}

/// A group's weights times the activations of sixteen tokens.
///
/// # Safety
/// 1. The registers are configured.
#[inline(always)]
unsafe fn multiply(turn: usize, activations: &[[i8; GROUP]; TILE], weights: &Unpacked) {
    macro_rules! multiply {
        ($products:tt, $activations:tt, $weights:tt) => {
            asm!(
                concat!("tilezero ", $products),
                concat!("tileloadd ", $activations, ", [{a} + {a_row}]"),
                concat!("tileloadd ", $weights, ", [{w} + {w_row}]"),
                concat!("tdpbssd ", $products, ", ", $activations, ", ", $weights),
                a = in(reg) activations,
                a_row = in(reg) size_of::<[i8; GROUP]>(),
                w = in(reg) weights,
                w_row = in(reg) size_of::<[i8; 4 * ROWS]>(),
                out($products) _,
                out($activations) _,
                out($weights) _,
                options(readonly, nostack, preserves_flags),
            )
        };
    }
    // SAFETY: (1) as above; (2) sixteen rows of 32 bytes and eight of 64.
    unsafe {
        match turn {
            0 => multiply!("tmm0", "tmm4", "tmm6"),
            1 => multiply!("tmm1", "tmm5", "tmm7"),
            2 => multiply!("tmm2", "tmm4", "tmm6"),
            _ => multiply!("tmm3", "tmm5", "tmm7"),
        }
    }
}

/// The products of [`multiply`] with the same `turn`.
///
/// # Safety
/// 1. The registers are configured.
#[inline(always)]
unsafe fn store(turn: usize, out: &mut Products) {
    macro_rules! store {
        ($products:tt) => {
            asm!(
                concat!("tilestored [{out} + {row}], ", $products),
                out = in(reg) out,
                row = in(reg) size_of::<[i32; ROWS]>(),
                options(nostack, preserves_flags),
            )
        };
    }
    // SAFETY: (1) as above: the register still holds what `multiply` left there; (3) (4) sixteen rows of 64
    // bytes, borrowed exclusively.
    unsafe {
        match turn {
            0 => store!("tmm0"),
            1 => store!("tmm1"),
            2 => store!("tmm2"),
            _ => store!("tmm3"),
        }
    }
}
