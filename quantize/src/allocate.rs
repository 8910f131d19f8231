//! Which matrix gets which encoding.

use pocketgpt_runtime::format::{Encoding, Role};

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

    /// That of a matrix.
    ///
    /// # Panics
    /// If the role is not a matrix.
    pub(crate) fn of(&self, role: Role, layer: u16) -> Encoding {
        let place = match role {
            Role::Wte | Role::LmHead => return self.head,
            Role::CAttnWeight => 0,
            Role::AttnCProjWeight => 1,
            Role::CFcWeight => 2,
            Role::MlpCProjWeight => 3,
            _ => panic!("only matrices have a choice"),
        };
        self.blocks[usize::from(layer)][place]
    }
}
