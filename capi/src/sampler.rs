//! From logits to a token, for callers who write the loop themselves.

use core::ffi::c_void;

use pocketgpt_runtime::decoding::{Candidate, Context, Sampler};
use pocketgpt_runtime::kernels::Kernels;

use crate::boundary::{Out, array, exclusive, guard, shared};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};
use crate::model::pgpt_model;
use crate::options::pgpt_options;

/// Chooses tokens, greedily or at random.
pub struct pgpt_sampler {
    sampler: Sampler<'static, 'static>,
    kernels: Kernels,
    vocab_size: usize,
}

/// Elements of the sampler's two arrays.
fn needed(model: &pgpt_model, options: &pgpt_options) -> Result<(usize, usize), Failure> {
    let config = model.model.config();
    let decoding = options.plain_decoding()?;
    // The context, or more where it begins anew.
    let text = (options.max_prompt as usize).saturating_add(decoding.max_new_tokens);
    let text = text.max(config.n_ctx as usize + 1);
    Ok(Sampler::needed(&decoding, config.vocab_size as usize, text))
}

fn needed_lines((scores, candidates): (usize, usize), options: &pgpt_options) -> usize {
    lines_of::<pgpt_sampler>(1)
        .saturating_add(options.list_lines())
        .saturating_add(lines_of::<f32>(scores))
        .saturating_add(lines_of::<Candidate>(candidates))
}

/// Bytes of memory that a sampler with these options takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_sampler_size(
    model: *const pgpt_model,
    options: *const pgpt_options,
    size: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut size = Out::new(size, "size")?;
            let (model, options) = (shared(model, "model")?, pgpt_options::read(options)?);
            size.write(bytes_for(needed_lines(needed(model, &options)?, &options)));
            Ok(())
        })
    }
}

/// Makes a sampler in the caller's memory, at any address. The strategy must be greedy or sample.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_sampler_new(
    model: *const pgpt_model,
    options: *const pgpt_options,
    memory: *mut c_void,
    memory_size: usize,
    sampler: *mut *mut pgpt_sampler,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut sampler = Out::handle(sampler, "sampler")?;
            let (model, options) = (shared(model, "model")?, pgpt_options::read(options)?);
            let (scores, candidates) = needed(model, &options)?;
            let lines = needed_lines((scores, candidates), &options);
            let mut memory = Memory::new(memory, memory_size, lines)?;
            let decoding = options.decoding(model, &mut memory)?;
            let (scores, candidates) = (memory.numbers(scores), memory.numbers(candidates));
            let made = Sampler::new(&decoding, scores, candidates)?;
            let handle = pgpt_sampler {
                sampler: made,
                kernels: *model.model.kernels(),
                vocab_size: model.model.config().vocab_size as usize,
            };
            sampler.write(memory.handle(handle));
            Ok(())
        })
    }
}

/// Chooses the token that follows a text, given its `vocab_size` logits. `text` is the whole text
/// of `count` tokens, of which the last `new_count` were chosen; without repetition_penalty,
/// no_repeat_ngram_size, min_new_tokens and sequence_bias it may be NULL and 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_sampler_next(
    sampler: *mut pgpt_sampler,
    logits: *const f32,
    text: *const u32,
    count: usize,
    new_count: usize,
    token: *mut u32,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut token = Out::new(token, "token")?;
            let pgpt_sampler { sampler, kernels, vocab_size } = exclusive(sampler, "sampler")?;
            let logits = array(logits, *vocab_size, "logits")?;
            let text = array(text, count, "text")?;
            token.write(sampler.next(kernels, logits, Context { text, new_tokens: new_count })?);
            Ok(())
        })
    }
}
