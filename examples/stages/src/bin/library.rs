//! The runtime as a library: open a file, give it memory, write a text.

use std::ops::ControlFlow;

use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_stages::{Error, model_path};

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let config = *model.config();
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;

    let prompt = tokenizer.encode_to_vec("Once upon a time");
    let sampling = SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
    let options = DecodingOptions {
        strategy: Strategy::Sample(sampling),
        max_new_tokens: 50,
        seed: 7,
        ..DecodingOptions::new(&config)
    };
    let session_options = options.session_options(&SessionOptions::new(&config), prompt.len());
    let mut memory = vec![Line::ZERO; Plan::new(&config, &session_options)?.lines()];
    let mut session = Session::new(model, &session_options, &mut memory)?;
    let mut memory = vec![Line::ZERO; Generator::lines(&config, &options, prompt.len())?];
    let mut generator = Generator::new(&config, &options, prompt.len(), &mut memory)?;

    let mut text = prompt.clone();
    generator.run(&mut session, &Serial, &prompt, &mut |token: u32| {
        text.push(token);
        ControlFlow::Continue(())
    })?;
    println!("{}", tokenizer.decode_to_string(&text));
    Ok(())
}
