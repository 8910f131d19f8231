//! The model inside the program.

/// Bytes at the alignment that a weight file has when it is mapped.
#[cfg(feature = "embedded-model")]
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

#[cfg(feature = "embedded-model")]
static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.pgpt")));

/// The bundled model's file, if the program was built with it.
pub fn model() -> Option<&'static [u8]> {
    #[cfg(feature = "embedded-model")]
    return Some(&MODEL.0);
    #[cfg(not(feature = "embedded-model"))]
    None
}
