//! What does not fit is an error before anything is written.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, SamplingOptions, Strategy,
};
use pocketgpt_runtime::error::CapacityError;
use pocketgpt_runtime::generate::{GenerateError, Generator};
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Quiet, bundled, nan_lines, with_session};

/// A prompt that is longer than the generator was made for would be written over by what follows,
/// or reach behind the memory.
#[test]
fn rejects_prompts_longer_than_planned() {
    let converted = Converted::new(&bundled(), Encoding::Q8);
    let model = converted.model();
    let config = *model.config();
    let n_ctx = config.n_ctx as usize;
    for strategy in [
        Strategy::Greedy,
        Strategy::Sample(SamplingOptions::default()),
        Strategy::Beam(BeamOptions::default()),
        Strategy::Contrastive(ContrastiveOptions::default()),
    ] {
        for (max_prompt, len) in [(0, 3), (4, 5), (4, 7), (n_ctx + 20, n_ctx + 9)] {
            let options =
                DecodingOptions { strategy, max_new_tokens: 3, ..DecodingOptions::new(&config) };
            let session = options.session_options(&SessionOptions::new(&config), max_prompt);
            let mut own = nan_lines(Generator::lines(&config, &options, max_prompt).unwrap());
            let mut generator = Generator::new(&config, &options, max_prompt, &mut own).unwrap();
            let error = with_session(model, &session, |session| {
                generator.run(session, &Serial, &vec![1; len], &mut Quiet)
            });
            let name = "tokens of the prompt";
            let max = max_prompt.min(n_ctx + 1);
            let expected = CapacityError::Option { name, value: len, max };
            assert_eq!(error, Err(GenerateError::from(expected)), "{strategy:?}");
            assert_eq!(generator.sequences().count(), 0);
        }
    }
}
