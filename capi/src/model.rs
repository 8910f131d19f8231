//! A model over bytes that the caller has.

use core::ffi::c_void;

use pocketgpt_runtime::KvType;
use pocketgpt_runtime::format::{Role, WeightFile};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::tokenizer::TokenizerView;

use crate::boundary::{Out, array, fill, guard, shared};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};

/// A model: a proven file and the instructions to run it with. Does not change, so that several
/// threads may use it at the same time.
pub struct pgpt_model {
    pub(crate) model: Gpt2<'static>,
    tokenizer: Option<TokenizerView<'static>>,
}

impl pgpt_model {
    pub(crate) fn tokenizer(&self) -> Result<TokenizerView<'static>, Failure> {
        self.tokenizer.ok_or(Failure::NoTokenizer)
    }
}

/// Instructions that a model can be run with. All give the same results, bit for bit.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_isa {
    /// The fastest that this machine has.
    PGPT_ISA_BEST = 0,
    /// Plain instructions, on any CPU.
    PGPT_ISA_SCALAR = 1,
    /// x86-64 with AVX2, FMA and F16C.
    PGPT_ISA_AVX2 = 2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI.
    PGPT_ISA_AVX512VNNI = 3,
    /// AArch64.
    PGPT_ISA_NEON = 4,
    /// AArch64 with dot products.
    PGPT_ISA_DOTPROD = 5,
    /// AArch64 with products of int8 matrices.
    PGPT_ISA_I8MM = 6,
    /// x86-64 with AVX-512 as above and AMX for bytes, under Linux, of which the registers are asked for: for
    /// the whole process, whose alternate signal stacks need room for 8 KB more then. `PGPT_ISA_BEST` looks
    /// for it, codes of other sets do not.
    PGPT_ISA_AMX = 7,
}

/// A code of [`pgpt_isa`]; `None` is the best.
fn isa(code: u32) -> Result<Option<Isa>, Failure> {
    let named = usize::try_from(code).ok().filter(|&code| code <= Isa::ALL.len());
    let code = named.ok_or(Failure::Code { name: "isa", found: code })?;
    Ok(code.checked_sub(1).map(|i| Isa::ALL[i]))
}

fn code(isa: Isa) -> u32 {
    Isa::ALL.iter().position(|&each| each == isa).map_or(0, |i| i as u32 + 1)
}

// The order of the sets is that of the codes, which programs keep.
const _: () = {
    use pgpt_isa::*;
    assert!(matches!(Isa::ALL[PGPT_ISA_SCALAR as usize - 1], Isa::Scalar));
    assert!(matches!(Isa::ALL[PGPT_ISA_AVX2 as usize - 1], Isa::Avx2));
    assert!(matches!(Isa::ALL[PGPT_ISA_AVX512VNNI as usize - 1], Isa::Avx512Vnni));
    assert!(matches!(Isa::ALL[PGPT_ISA_NEON as usize - 1], Isa::Neon));
    assert!(matches!(Isa::ALL[PGPT_ISA_DOTPROD as usize - 1], Isa::Dotprod));
    assert!(matches!(Isa::ALL[PGPT_ISA_I8MM as usize - 1], Isa::I8mm));
    assert!(matches!(Isa::ALL[PGPT_ISA_AMX as usize - 1], Isa::Amx));
};

/// What a model is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_model_info {
    /// Tokens there are: ids are below it.
    pub vocab_size: u32,
    /// Longest text in tokens.
    pub n_ctx: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Blocks.
    pub n_layer: u32,
    /// Attention heads of a block.
    pub n_head: u32,
    /// Width of the MLP.
    pub n_inner: u32,
    /// Token that begins a text, -1 if the model names none.
    pub bos_token_id: i64,
    /// Token that ends a text, -1 if the model names none.
    pub eos_token_id: i64,
    /// The instructions in use: one of pgpt_isa, not PGPT_ISA_BEST.
    pub isa: u32,
    /// 1 if the file has a tokenizer.
    pub has_tokenizer: u32,
}

/// Bytes of memory that a model handle takes. The file's bytes come on top, and stay where they
/// are.
#[unsafe(no_mangle)]
pub extern "C" fn pgpt_model_size() -> usize {
    bytes_for(lines_of::<pgpt_model>(1))
}

/// Opens a model: `bytes` is a whole .pgpt file, at an address that is a multiple of 64. Header
/// and directory are proven, no weight is read. `isa` is one of pgpt_isa. The bytes and the memory
/// must stay while the model is used; there is nothing to close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_model_open(
    bytes: *const c_void,
    length: usize,
    isa: u32,
    memory: *mut c_void,
    memory_size: usize,
    model: *mut *mut pgpt_model,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut model = Out::handle(model, "model")?;
            if bytes.is_null() {
                return Err(Failure::Null("bytes"));
            }
            let kernels = match self::isa(isa)? {
                None => Kernels::best(),
                Some(isa) => Kernels::for_isa(isa).ok_or(Failure::Isa(isa))?,
            };
            let file = WeightFile::new(array(bytes.cast(), length, "bytes")?)?;
            let mut memory = Memory::new(memory, memory_size, lines_of::<pgpt_model>(1))?;
            let tokenizer = file.tokenizer()?;
            let handle = pgpt_model { model: Gpt2::new(file, kernels), tokenizer };
            model.write(memory.handle(handle));
            Ok(())
        })
    }
}

/// Reads the whole file and checks everything that opening leaves out: all checksums, and that the
/// weights are finite numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_model_verify(
    model: *const pgpt_model,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe { guard(error, || Ok(shared(model, "model")?.model.file().verify()?)) }
}

/// Tells what the model is. `info_size` is sizeof(pgpt_model_info).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_model_get_info(
    model: *const pgpt_model,
    info: *mut pgpt_model_info,
    info_size: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let model = shared(model, "model")?;
            let config = model.model.config();
            let value = pgpt_model_info {
                vocab_size: config.vocab_size,
                n_ctx: config.n_ctx,
                n_embd: config.n_embd,
                n_layer: config.n_layer,
                n_head: config.n_head,
                n_inner: config.n_inner,
                bos_token_id: config.bos_token_id.map_or(-1, i64::from),
                eos_token_id: config.eos_token_id.map_or(-1, i64::from),
                isa: code(model.model.kernels().isa()),
                has_tokenizer: u32::from(model.tokenizer.is_some()),
            };
            fill(info, info_size, value, "info")
        })
    }
}

/// How keys and values are kept where the caller does not say: as exactly as the weights are.
pub(crate) fn default_kv(file: &WeightFile<'_>) -> KvType {
    let quantized = file.tensor(Role::CAttnWeight, 0).entry.encoding.is_quantized();
    if quantized { KvType::Q8 } else { KvType::F32 }
}
