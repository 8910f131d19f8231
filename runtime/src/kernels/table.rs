//! A set of kernels, as the module of an instruction set states it.

/// The 16-lane kernels of [`super::generic`], compiled for the target features `$features` with
/// the lanes of `$token`, and the [`super::Table`] that holds them beside the integer kernels of
/// the module. `$tokens` is how many tokens a float matrix product takes at once.
macro_rules! kernel_table {
    ($isa:expr, $features:literal, $token:expr, tokens = $tokens:literal) => {
        pub(in crate::kernels) static TABLE: Table = Table {
            isa: $isa,
            matmul_q8,
            matmul_q4,
            matmul_q3,
            matmul_f32,
            matmul_f16,
            quantize,
            layer_norm,
            gelu_new,
            gelu,
            relu,
            silu,
            add,
            add_residual,
            scores_f32,
            scores_f16,
            scores_q8,
            softmax,
            values_f32,
            values_f16,
            weigh_values,
            values_q8,
        };

        #[target_feature(enable = $features)]
        fn matmul_f32(lhs: &FloatLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
            let len = tile::record_len(Encoding::F32, lhs.cols) / 4;
            let records: &[f32] = bytemuck::cast_slice(records);
            generic::matmul_float::<_, _, $tokens>($token, lhs, len, records, dst);
        }

        #[target_feature(enable = $features)]
        fn matmul_f16(lhs: &FloatLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
            let len = tile::record_len(Encoding::F16, lhs.cols) / 2;
            let records: &[u16] = bytemuck::cast_slice(records);
            generic::matmul_float::<_, _, $tokens>($token, lhs, len, records, dst);
        }

        #[target_feature(enable = $features)]
        fn quantize(x: &[f32], group: usize, q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
            let (blocks, rest) = x.as_chunks();
            if x.len() == group && rest.is_empty() {
                (scales[0], sums[0]) = generic::quantize_one($token, blocks, q);
            } else {
                quantize_groups(x, group, q, scales, sums);
            }
        }

        /// By itself, so that a single group need not its registers.
        #[inline(never)]
        #[target_feature(enable = $features)]
        fn quantize_groups(
            x: &[f32],
            group: usize,
            q: &mut [i8],
            scales: &mut [f32],
            sums: &mut [i32],
        ) {
            generic::quantize($token, x, group, q, scales, sums);
        }

        #[target_feature(enable = $features)]
        fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
            generic::layer_norm($token, x, weight, bias, eps, out);
        }

        #[target_feature(enable = $features)]
        fn gelu_new(x: &mut [f32], bias: &[f32]) {
            generic::pointwise($token, generic::GeluNew, x, bias);
        }

        #[target_feature(enable = $features)]
        fn gelu(x: &mut [f32], bias: &[f32]) {
            generic::pointwise($token, generic::Gelu, x, bias);
        }

        #[target_feature(enable = $features)]
        fn relu(x: &mut [f32], bias: &[f32]) {
            generic::pointwise($token, generic::Relu, x, bias);
        }

        #[target_feature(enable = $features)]
        fn silu(x: &mut [f32], bias: &[f32]) {
            generic::pointwise($token, generic::Silu, x, bias);
        }

        #[target_feature(enable = $features)]
        fn add(x: &mut [f32], bias: &[f32]) {
            generic::pointwise($token, generic::Identity, x, bias);
        }

        #[target_feature(enable = $features)]
        fn add_residual(x: &mut [f32], out: &[f32], bias: &[f32]) {
            generic::add_residual($token, x, out, bias);
        }

        #[target_feature(enable = $features)]
        fn scores_f32(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
            generic::scores_float($token, query, keys, scale, scores);
        }

        #[target_feature(enable = $features)]
        fn scores_f16(query: &[f32], keys: &[u16], scale: f32, scores: &mut [f32]) {
            generic::scores_float($token, query, keys, scale, scores);
        }

        #[target_feature(enable = $features)]
        fn softmax(x: &mut [f32], lens: &[usize], sums: &mut [f32]) {
            generic::softmax($token, x, lens, sums);
        }

        #[target_feature(enable = $features)]
        fn values_f32(weights: &[f32], scale: f32, values: &[f32], out: &mut [f32]) {
            generic::values_float($token, weights, scale, values, out);
        }

        #[target_feature(enable = $features)]
        fn values_f16(weights: &[f32], scale: f32, values: &[u16], out: &mut [f32]) {
            generic::values_float($token, weights, scale, values, out);
        }

        #[target_feature(enable = $features)]
        fn weigh_values(weights: &[f32], scales: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 {
            generic::weigh_values($token, weights, scales, high, low)
        }
    };
}
