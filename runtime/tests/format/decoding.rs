//! A whole model, as small as one can be: for Miri, which has no time for larger ones.

use pocketgpt_runtime::KvType;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::{Parallel, Serial};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

use crate::tiny;

/// A batch on two threads and step by step on one, with every kind of cache, one of them sliding:
/// cache, scratch, threads and kernels share memory as they should, and the numbers are the same.
#[test]
fn a_small_text_however_it_is_fed() {
    let file = tiny::file();
    let file = file.open().unwrap();
    let pool = ThreadPool::new(2).unwrap();
    let ids = [0, 16, 3, 9];
    for (kv, window) in [(KvType::F32, 4), (KvType::F16, 3), (KvType::Q8, 4)] {
        let options = SessionOptions {
            kv,
            window,
            threads: 2,
            batch: 3,
            ..SessionOptions::new(file.config())
        };
        let lines = Plan::new(file.config(), &options).unwrap().lines();
        let logits = |isa, par: &dyn Parallel, step: usize| -> Vec<u32> {
            let mut memory = vec![Line::ZERO; lines];
            let model = Gpt2::new(file, Kernels::for_isa(isa).unwrap());
            let mut session = Session::new(model, &options, &mut memory).unwrap();
            let mut last = vec![];
            for ids in ids.chunks(step) {
                last = session.feed(ids, par).unwrap().iter().map(|x| x.to_bits()).collect();
            }
            last
        };
        let expected = logits(Isa::Scalar, &Serial, 1);
        assert_eq!(logits(Isa::Scalar, &pool, 4), expected, "{kv:?}");
        if Isa::best() != Isa::Scalar {
            assert_eq!(logits(Isa::best(), &pool, 3), expected, "{kv:?}");
        }
    }
}
