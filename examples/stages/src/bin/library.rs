//! The runtime as a library: open a file, give it memory, write a text.

use std::ops::ControlFlow;

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::generate::{GenerateOptions, generate};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::sampling::{Candidate, Sampler, SamplingOptions, Strategy};
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_stages::{Error, model_path};

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let (config, options) = (*model.config(), SessionOptions::new(model.config()));
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;

    let mut memory = vec![Line::ZERO; Plan::new(&config, &options)?.lines()];
    let mut session = Session::new(model, &options, &mut memory)?;
    let vocab_size = config.vocab_size as usize;
    let (mut candidates, mut values) =
        (vec![Candidate::default(); vocab_size], vec![0.0; vocab_size]);
    let sampling = SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
    let strategy = Strategy::Sample(sampling);
    let mut sampler = Sampler::new(strategy, 1.0, 7, &mut candidates, &mut values)?;

    let mut text = tokenizer.encode_to_vec("Once upon a time");
    let prompt = text.clone();
    let stop = GenerateOptions { max_new_tokens: 50, eos_token_id: config.eos_token_id };
    generate(&mut session, &Serial, &mut sampler, &mut [], &prompt, &stop, |token| {
        text.push(token);
        ControlFlow::Continue(())
    })?;
    println!("{}", tokenizer.decode_to_string(&text));
    Ok(())
}
