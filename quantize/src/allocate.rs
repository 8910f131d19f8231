//! Which matrix gets which encoding.

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::{Encoding, Role};
use pocketgpt_runtime::quant::tile::{blocks, record_len};

use crate::error::ConvertError;

/// A block's matrices, in the order of the file.
const MATRICES: [Role; 4] =
    [Role::CAttnWeight, Role::AttnCProjWeight, Role::CFcWeight, Role::MlpCProjWeight];

/// The encodings of all matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encodings {
    /// `wte` and `lm_head`.
    pub(crate) head: Encoding,
    /// For each block `c_attn`, `attn.c_proj`, `c_fc`, `mlp.c_proj`.
    pub(crate) blocks: Vec<[Encoding; 4]>,
}

impl Encodings {
    /// The same for all blocks.
    pub(crate) fn uniform(head: Encoding, blocks: Encoding, n_layer: u32) -> Self {
        Self { head, blocks: vec![[blocks; 4]; n_layer as usize] }
    }

    /// All of them, that of `wte` first, then those of each block.
    pub(crate) fn all(&self) -> impl Iterator<Item = Encoding> + '_ {
        std::iter::once(self.head).chain(self.blocks.iter().flatten().copied())
    }

    /// That of a matrix.
    ///
    /// # Panics
    /// If the role is not a matrix.
    pub(crate) fn of(&self, role: Role, layer: u16) -> Encoding {
        if matches!(role, Role::Wte | Role::LmHead) {
            return self.head;
        }
        let place = MATRICES.iter().position(|other| *other == role);
        let place = place.expect("only matrices have a choice");
        self.blocks[usize::from(layer)][place]
    }
}

/// How large a file may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits per weight over all matrices, `wte` and `lm_head` among them.
    BitsPerWeight(f64),
    /// Bytes of the file.
    FileBytes(u64),
}

/// What a target chooses from, the smallest first.
pub(crate) const LADDER: [Encoding; 3] = [Encoding::Q3, Encoding::Q4, Encoding::Q8];
/// The loss of the smallest, where it was not measured, is taken for this many times that of the second:
/// less than it is for any matrix (errors in q3 have five times the energy), so that what is not
/// chosen by it would not be chosen by what it really is either.
const AT_LEAST: f64 = 2.0;

/// What a matrix alone costs in the first two of [`LADDER`]; the last counts as nothing lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Losses {
    /// If it was measured.
    pub(crate) smallest: Option<f64>,
    pub(crate) second: f64,
}

impl Losses {
    fn avoided(&self) -> [f64; 2] {
        let smallest = self.smallest.unwrap_or(AT_LEAST * self.second);
        [smallest - self.second, smallest]
    }
}

/// An encoding that a matrix may have instead of the smallest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// What it takes more.
    pub(crate) bytes: u64,
    /// Divergence that it avoids.
    pub(crate) loss: f64,
}

/// The room that a target leaves for matrices. `file_len` is the length of a file in which all have
/// the first encoding of [`LADDER`].
///
/// # Errors
/// If no choice meets the target: the message has the nearest one that could be met.
pub(crate) fn room(
    config: &Gpt2Config,
    target: Target,
    file_len: u64,
) -> Result<u64, ConvertError> {
    let (bytes, weights) = sizes(config);
    let sum = |i: usize| bytes.iter().map(|sizes| sizes[i]).sum::<u64>();
    let (smallest, largest) = (sum(0), sum(LADDER.len() - 1));
    let room = match target {
        Target::BitsPerWeight(bits) => (bits * weights as f64 / 8.0) as u64,
        Target::FileBytes(bytes) => (bytes + smallest).saturating_sub(file_len),
    };
    let tell = |bytes: u64, up: bool| match target {
        Target::BitsPerWeight(_) => {
            let bits = 8e3 * bytes as f64 / weights as f64;
            format!("{:.3} bits per weight", if up { bits.ceil() } else { bits.floor() } / 1e3)
        }
        Target::FileBytes(_) => format!("{} bytes", file_len - smallest + bytes),
    };
    if room < smallest {
        return Err(ConvertError::TargetTooSmall { smallest: tell(smallest, true) });
    }
    // One percent, which is what is promised, above the largest.
    if room as f64 > 1.01 * largest as f64 {
        return Err(ConvertError::TargetTooLarge { largest: tell(largest, false) });
    }
    Ok(room)
}

/// Chooses an encoding of [`LADDER`] for every matrix, in as much room as [`room`] tells; what `wte`
/// costs comes first.
pub(crate) fn allocate(config: &Gpt2Config, losses: &[Losses], room: u64) -> Encodings {
    let (bytes, _) = sizes(config);
    let smallest: u64 = bytes.iter().map(|sizes| sizes[0]).sum();
    let choices: Vec<Vec<Choice>> = (bytes.iter().zip(losses))
        .map(|(bytes, losses)| {
            (bytes[1..].iter().zip(losses.avoided()))
                .map(|(more, loss)| Choice {
                    bytes: more - bytes[0],
                    loss: loss.max(f64::MIN_POSITIVE),
                })
                .collect()
        })
        .collect();
    let chosen: Vec<Encoding> =
        choose(&choices, room - smallest).into_iter().map(|i| LADDER[i]).collect();
    Encodings { head: chosen[0], blocks: chosen[1..].as_chunks::<4>().0.to_vec() }
}

/// The matrices whose loss should be measured before these encodings are believed to be the best; empty
/// if they are: losses that were not measured are higher than they are taken for, so that a choice that
/// takes none of them stays the best.
pub(crate) fn unsure(losses: &[Losses], chosen: &Encodings) -> Vec<usize> {
    let is_unsure = |(losses, encoding): (&Losses, Encoding)| {
        losses.smallest.is_none() && encoding == LADDER[0]
    };
    let all = losses.iter().zip(chosen.all()).enumerate();
    all.filter(|(_, of)| is_unsure(*of)).map(|(i, _)| i).collect()
}

/// Bytes of `wte` with the head, then of each matrix of the blocks, in each encoding of
/// [`LADDER`]; and all weights.
fn sizes(config: &Gpt2Config) -> (Vec<[u64; 3]>, u64) {
    let of = |role: Role| {
        let (rows, cols) = role.shape(config);
        let records = blocks(rows as usize) as u64;
        let bytes = LADDER.map(|e| records * record_len(e, cols as usize) as u64);
        (bytes, u64::from(rows) * u64::from(cols))
    };
    let (mut head, mut weights) = of(Role::Wte);
    if !config.tied_head {
        head = head.map(|bytes| 2 * bytes);
        weights *= 2;
    }
    let mut all = vec![head];
    for _ in 0..config.n_layer {
        for role in MATRICES {
            let (bytes, count) = of(role);
            all.push(bytes);
            weights += count;
        }
    }
    (all, weights)
}

/// Steps in which room is counted: more would find hardly better choices.
const STEPS: u64 = 1 << 14;

/// Which choice each matrix gets, from 1, or 0 for none of them, so that as much loss as possible is
/// avoided in `room` bytes: the knapsack problem, solved exactly for sizes rounded up to a small part
/// of the room.
pub(crate) fn choose(choices: &[Vec<Choice>], room: u64) -> Vec<usize> {
    let step = room.div_ceil(STEPS).max(1);
    let steps = (room / step) as usize;
    let size = |choice: &Choice| choice.bytes.div_ceil(step) as usize;
    // Loss avoided with at most so many steps, and what was chosen for it.
    let mut avoided = vec![0.0; steps + 1];
    let mut taken = vec![vec![0_u8; steps + 1]; choices.len()];
    for (choices, taken) in choices.iter().zip(&mut taken) {
        for used in (0..=steps).rev() {
            let without = avoided[used];
            for (i, choice) in choices.iter().enumerate().filter(|(_, c)| size(c) <= used) {
                // The loss avoided with fewer steps is still that of the matrices before.
                let with = if size(choice) == 0 { without } else { avoided[used - size(choice)] };
                let with = with + choice.loss;
                if with > avoided[used] {
                    (avoided[used], taken[used]) = (with, i as u8 + 1);
                }
            }
        }
    }
    let mut left = steps;
    let mut chosen = vec![0; choices.len()];
    for i in (0..choices.len()).rev() {
        chosen[i] = usize::from(taken[i][left]);
        if chosen[i] > 0 {
            left -= size(&choices[i][chosen[i] - 1]);
        }
    }
    fill(choices, room, &mut chosen);
    chosen
}

/// Spends what rounding up left free, on what avoids most first.
fn fill(choices: &[Vec<Choice>], room: u64, chosen: &mut [usize]) {
    const NONE: Choice = Choice { bytes: 0, loss: 0.0 };
    let of = |i: usize, place: usize| if place == 0 { NONE } else { choices[i][place - 1] };
    let used = |chosen: &[usize]| {
        chosen.iter().enumerate().map(|(i, place)| of(i, *place).bytes).sum::<u64>()
    };
    let gain =
        |chosen: &[usize], (i, place): (usize, usize)| of(i, place).loss - of(i, chosen[i]).loss;
    let mut better: Vec<(usize, usize)> = (0..choices.len())
        .flat_map(|i| (chosen[i] + 1..=choices[i].len()).map(move |place| (i, place)))
        .collect();
    better.sort_by(|a, b| gain(chosen, *b).total_cmp(&gain(chosen, *a)));
    for (i, place) in better {
        let mut with = chosen.to_vec();
        with[i] = place;
        if place > chosen[i] && used(&with) <= room {
            chosen[i] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_subset_is_found() {
        // Every subset, by brute force.
        let bytes = [700, 300, 300, 100, 900, 200, 450];
        let losses = [0.9, 0.2, 0.5, 0.05, 1.0, 0.3, 0.31];
        // A small step first, then all of it.
        let choices: Vec<Vec<Choice>> = (bytes.iter().zip(losses).enumerate())
            .map(|(i, (&bytes, loss))| {
                let part = Choice { bytes: bytes / 4, loss: (0.2 + 0.1 * i as f64) * loss };
                vec![part, Choice { bytes, loss }]
            })
            .collect();
        for room in (0..3200).step_by(50) {
            let worth = |chosen: &[usize]| {
                let of = |f: fn(&Choice) -> f64| -> f64 {
                    let one = |(c, x): (&usize, &Vec<Choice>)| {
                        if *c == 0 { 0.0 } else { f(&x[*c - 1]) }
                    };
                    chosen.iter().zip(&choices).map(one).sum()
                };
                (of(|c| c.bytes as f64), of(|c| c.loss))
            };
            let best = (0..3usize.pow(7))
                .map(|n| worth(&std::array::from_fn::<_, 7, _>(|i| n / 3usize.pow(i as u32) % 3)))
                .filter(|(bytes, _)| *bytes <= f64::from(room))
                .fold(0.0, |best: f64, (_, loss)| best.max(loss));
            let (bytes, loss) = worth(&choose(&choices, room as u64));
            assert!(bytes <= f64::from(room));
            assert!(loss > best - 1e-9, "room {room}: {loss} < {best}");
        }
    }

    #[test]
    fn large_rooms_are_filled() {
        let choices: Vec<Vec<Choice>> = (0..100)
            .map(|i| vec![Choice { bytes: 1_000_000 + 7919 * i, loss: 1.0 + (i % 7) as f64 }])
            .collect();
        for room in [10_000_000, 50_123_457, 90_000_001] {
            let used: u64 = (choose(&choices, room).iter().zip(&choices))
                .map(|(c, x)| *c as u64 * x[0].bytes)
                .sum();
            assert!(used <= room && room - used < 1_000_000, "{used} of {room}");
        }
    }

    fn config(n_embd: u32, n_layer: u32, vocab_size: u32) -> Gpt2Config {
        Gpt2Config {
            vocab_size,
            n_ctx: 512,
            n_embd,
            n_layer,
            n_head: n_embd / 64,
            n_inner: 4 * n_embd,
            activation: pocketgpt_runtime::config::Activation::GeluNew,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tied_head: true,
            layer_norm_epsilon: 1e-5,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    fn bytes_of(config: &Gpt2Config, encodings: &Encodings) -> u64 {
        let place = |e| LADDER.iter().position(|other| *other == e).unwrap();
        encodings.all().zip(sizes(config).0).map(|(e, sizes)| sizes[place(e)]).sum()
    }

    #[test]
    fn targets_are_met_and_never_exceeded() {
        for config in [config(256, 6, 4096), config(768, 12, 50257)] {
            let count = 1 + 4 * config.n_layer as usize;
            let losses: Vec<Losses> = (0..count)
                .map(|i| 1e-3 / (1 + i * 7 % 13) as f64)
                .map(|second| Losses { smallest: Some(4.0 * second), second })
                .collect();
            let (all, weights) = sizes(&config);
            let smallest: u64 = all.iter().map(|sizes| sizes[0]).sum();
            for bits in
                [3.4, 3.5, 3.75, 4.0, 4.2, 4.4, 4.5, 4.75, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 8.25]
            {
                let target = Target::BitsPerWeight(bits);
                let choose =
                    |target, len| allocate(&config, &losses, room(&config, target, len).unwrap());
                let used = bytes_of(&config, &choose(target, 0));
                let found = 8.0 * used as f64 / weights as f64;
                assert!(found <= bits && found > 0.99 * bits, "{bits}: {found}");
                // What stands around the matrices counts for files.
                let around = 1_000_000;
                let target = Target::FileBytes(used + around + 63);
                let again = bytes_of(&config, &choose(target, smallest + around));
                assert!(again <= used + 63 && again as f64 > 0.99 * used as f64);
            }
        }
    }

    #[test]
    fn what_is_not_measured_changes_no_choice() {
        let config = config(768, 12, 50257);
        let noise = |i: usize| {
            ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1 << 24) as f64
        };
        let known: Vec<Losses> = (0..49)
            .map(|i| (1e-3 * noise(i), 2.0 + 5.0 * noise(i + 100)))
            .map(|(second, times)| Losses { smallest: Some(times * second), second })
            .collect();
        let mut spared = 0;
        for bits in [3.3, 3.6, 4.0, 4.3, 4.6, 5.0, 5.5, 6.5] {
            let room = room(&config, Target::BitsPerWeight(bits), 0).unwrap();
            let mut losses: Vec<Losses> =
                known.iter().map(|losses| Losses { smallest: None, ..*losses }).collect();
            let chosen = loop {
                let chosen = allocate(&config, &losses, room);
                let unsure = unsure(&losses, &chosen);
                if unsure.is_empty() {
                    break chosen;
                }
                unsure.iter().for_each(|i| losses[*i].smallest = known[*i].smallest);
            };
            // The same but for what rounding sizes leaves to `fill`.
            let [lost, least] = [chosen, allocate(&config, &known, room)].map(|encodings| -> f64 {
                let each = known.iter().zip(encodings.all()).map(|(losses, e)| match e {
                    Encoding::Q3 => losses.smallest.unwrap(),
                    Encoding::Q4 => losses.second,
                    _ => 0.0,
                });
                each.sum()
            });
            assert!(lost < 1.001 * least, "{bits}: {lost} instead of {least}");
            spared += losses.iter().filter(|losses| losses.smallest.is_none()).count();
        }
        assert!(spared > 8 * 49 / 3, "{spared} of {}", 8 * 49);
    }

    #[test]
    fn impossible_targets_name_the_nearest() {
        let config = config(256, 6, 4096);
        let target = |bits| room(&config, Target::BitsPerWeight(bits), 0);
        let error = target(3.0).unwrap_err().to_string();
        let smallest = error.split(' ').find_map(|word| word.parse::<f64>().ok()).unwrap();
        assert!(error.contains("too small") && target(smallest).is_ok(), "{error}");
        let error = target(9.0).unwrap_err().to_string();
        let largest = error.split(' ').find_map(|word| word.parse::<f64>().ok()).unwrap();
        assert!(error.contains("too large") && target(largest).is_ok(), "{error}");
    }
}
