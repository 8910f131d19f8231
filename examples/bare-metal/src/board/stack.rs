//! How much of the stack is used: what is free at the start is painted, and looked at in the end.

use core::ptr;

/// No number that the program would write by chance all over its stack.
const PAINT: u32 = 0xa5c3_5a3c;
/// Below the caller's frame: what `paint` itself uses.
const OWN: usize = 1024;

unsafe extern "C" {
    #[cfg_attr(target_arch = "arm", link_name = "__sheap")]
    static __stack_bottom: u32;
    #[cfg_attr(target_arch = "arm", link_name = "_stack_start")]
    static __stack_top: u32;
}

fn bottom() -> *mut u32 {
    (&raw const __stack_bottom).cast_mut()
}

fn top() -> usize {
    (&raw const __stack_top).addr()
}

/// Paints the stack from its end up to here.
#[inline(never)]
pub fn paint() {
    let here = 0_u32;
    let free = (&raw const here).addr().saturating_sub(OWN + bottom().addr());
    for i in 0..free / 4 {
        // SAFETY: the linker script keeps this memory for the stack, which does not reach so far.
        unsafe { ptr::write_volatile(bottom().add(i), PAINT) };
    }
}

/// Most bytes of the stack that were in use at a time.
pub fn used() -> usize {
    let mut at = bottom();
    // SAFETY: between the ends of the stack; what is read are numbers, whatever they mean.
    while at.addr() < top() && unsafe { ptr::read_volatile(at) } == PAINT {
        // SAFETY: at most its end.
        at = unsafe { at.add(1) };
    }
    top() - at.addr()
}
