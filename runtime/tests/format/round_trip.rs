//! What is written comes back, and no flipped byte goes unnoticed.

use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::format::tensor::tensor_count;
use pocketgpt_runtime::format::{Encoding, Packing, TensorView};
use pocketgpt_runtime::kernels::{Columns, FloatLhs, Kernels, Lhs, QuantLhs};
use proptest::prelude::*;

use crate::decoder;
use crate::tiny::{self, Numbers, Parts, tensor};

prop_compose! {
    /// Sizes that fit no tile, tied and untied, every activation and flag.
    fn config()(
        head_dim in prop_oneof![Just(32u32), Just(33), Just(40), Just(64), Just(128)],
        n_head in 1u32..=3,
        vocab_size in prop_oneof![1u32..=40, 261u32..=280],
        n_ctx in 1u32..=9,
        n_layer in 1u32..=2,
        n_inner in 1u32..=70,
        activation in (0u32..4).prop_map(|code| Activation::from_code(code).unwrap()),
        flags in any::<[bool; 3]>(),
        layer_norm_epsilon in 1e-12f32..=1.0,
        bos in prop::option::of(any::<u32>()),
        eos in prop::option::of(any::<u32>()),
    ) -> Gpt2Config {
        Gpt2Config {
            vocab_size, n_ctx, n_embd: head_dim * n_head, n_layer, n_head, n_inner, activation,
            scale_attn_weights: flags[0],
            scale_attn_by_inverse_layer_idx: flags[1],
            tied_head: flags[2],
            layer_norm_epsilon,
            bos_token_id: bos.map(|id| id % vocab_size),
            eos_token_id: eos.map(|id| id % vocab_size),
        }
    }
}

/// The weights `[rows][cols]` as the kernels use them: a matrix product with the unit matrix.
fn weights_of(tensor: &TensorView<'_>) -> Vec<f32> {
    let (rows, cols) = (tensor.entry.rows as usize, tensor.entry.cols as usize);
    if tensor.entry.packing == Packing::Rows {
        return match tensor.entry.encoding {
            Encoding::F32 => tensor.f32s().to_vec(),
            _ => {
                let halves = tensor.bytes.as_chunks::<2>().0;
                halves.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
            }
        };
    }
    let stride = rows.next_multiple_of(16);
    let groups = cols.div_ceil(32);
    let unit = |stride: usize| (0..cols * stride).map(move |i| i / stride == i % stride);
    let mut out = vec![0.0; cols * stride]; // [cols, rows]
    let mut columns = Columns::new(&mut out, stride);
    let kernels = Kernels::best();
    match tensor.entry.encoding {
        Encoding::F32 | Encoding::F16 => {
            let x: Vec<_> = unit(cols).map(|one| f32::from(u8::from(one))).collect();
            let lhs = Lhs::Float(FloatLhs { x: &x, m: cols, cols });
            kernels.matmul(&lhs, tensor.entry.encoding, tensor.bytes, &mut columns);
        }
        Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => {
            let q: Vec<_> = unit(groups * 32).map(i8::from).collect();
            let sums: Vec<_> =
                q.chunks_exact(32).map(|q| q.iter().map(|&q| i32::from(q)).sum()).collect();
            let scales = vec![1.0; cols * groups];
            let (scales, sums) = (&scales[..], &sums[..]);
            let lhs = Lhs::Quant(QuantLhs { q: &q, scales, sums, m: cols, groups });
            kernels.matmul(&lhs, tensor.entry.encoding, tensor.bytes, &mut columns);
        }
    }
    (0..rows * cols).map(|i| out[i % cols * stride + i / cols]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_comes_back(
        config in config(),
        with_tokenizer in any::<bool>(),
        metadata in ".{0,120}",
        seed in any::<u64>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 100),
    ) {
        let with_tokenizer = with_tokenizer && config.vocab_size >= 261;
        let tokenizer = if with_tokenizer { tiny::tokenizer() } else { vec![] };
        let parts = Parts { config, tokenizer, metadata };
        let mut codes = Numbers(seed);
        let mut written = parts.write(
            |_, _| Encoding::from_code((codes.next() % 5) as u8).unwrap(),
            |entry| tensor(entry, seed ^ entry.offset << 40),
        );

        let file = written.file.open().unwrap();
        prop_assert_eq!(file.config(), &config);
        let header = file.header().encode();
        prop_assert_eq!(&header[..], &file.bytes()[..128]);
        prop_assert_eq!(file.metadata(), Ok(parts.metadata.as_str()));
        let tokenizer = file.tokenizer().unwrap();
        prop_assert_eq!(tokenizer.is_some(), with_tokenizer);
        let span = file.header().sections[2];
        let found = &file.bytes()[span.offset as usize..][..span.len as usize];
        prop_assert_eq!(found, parts.tokenizer.as_slice());
        prop_assert_eq!(file.tensors().len(), tensor_count(&config));
        prop_assert_eq!(file.tensors().len(), written.entries.len());
        let second = decoder::tensors(file.bytes());
        for (i, tensor) in file.tensors().enumerate() {
            prop_assert_eq!(tensor.entry, written.entries[i]);
            prop_assert_eq!(tensor.bytes, written.tensors[i].as_slice());
            let again = file.tensor(tensor.entry.role, usize::from(tensor.entry.layer));
            prop_assert_eq!(again.entry, tensor.entry, "found by name");
            let layer = second[i].layer;
            prop_assert_eq!((second[i].role, layer), (tensor.entry.role as u16, tensor.entry.layer));
            prop_assert_eq!(second[i].weights(file.bytes()), weights_of(&tensor));
        }
        prop_assert_eq!(file.verify(), Ok(()));
        let [scalar, best] = tiny::two_steps(file);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&scalar), bits(&best));

        for (index, flip) in flips {
            let at = index.index(written.file.bytes().len());
            written.file.bytes_mut()[at] ^= flip;
            let found = written.file.open().and_then(|file| file.verify());
            prop_assert!(found.is_err(), "byte {} of the file flipped by {:#x}", at, flip);
            written.file.bytes_mut()[at] ^= flip;
        }
    }
}
