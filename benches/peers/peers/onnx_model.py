"""Builds GPT-2 as an ONNX graph, and quantizes it with ONNX Runtime's own tools.

The graph is the one that ONNX Runtime's optimizer for transformers aims at: its fused operators, and a
cache of keys and values that is written in place (`GroupQueryAttention` with one buffer for past
and present), so that no token copies the cache. Logits are computed for the last token only.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

MICROSOFT = "com.microsoft"


class Graph:
    """Nodes and weights of a GPT-2 in the making."""

    def __init__(self, checkpoint: Path):
        self.config = json.loads((checkpoint / "config.json").read_text())
        if self.config["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
            raise ValueError(f"{checkpoint}: FastGelu is not {self.config['activation_function']}")
        with safe_open(checkpoint / "model.safetensors", "np") as file:
            self.weights = {
                name.removeprefix("transformer."): file.get_tensor(name).astype(np.float32)
                for name in file.keys()
            }
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, data: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(data), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **options) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, outputs, name=name, domain=domain, **options)
        )
        return outputs[0]

    def linear(self, x: str, layer: str, out: str) -> str:
        """Without the bias."""
        return self.node("MatMul", [x, self.weight(f"{layer}.weight")], [out])

    def embeddings(self) -> str:
        tokens = self.node("Gather", [self.weight("wte.weight"), "input_ids"], ["tokens"])
        positions = self.node("Gather", [self.weight("wpe.weight"), "position_ids"], ["positions"])
        return self.node("Add", [tokens, positions], ["hidden"])

    def norm_of_sum(self, x: str, skip: str, bias: str, norm: str, out: str) -> tuple[str, str]:
        """LayerNorm of `x + skip + bias`, and the sum itself."""
        inputs = [x, skip, self.weight(f"{norm}.weight"), self.weight(f"{norm}.bias"), bias]
        total, epsilon = f"{out}.sum", self.config["layer_norm_epsilon"]
        outputs = [out, "", "", total]
        self.node("SkipLayerNormalization", inputs, outputs, MICROSOFT, epsilon=epsilon)
        return out, total

    def attention(self, x: str, layer: int) -> str:
        """Projections and attention, without the output's bias."""
        name, heads = f"h.{layer}.attn", self.config["n_head"]
        qkv = self.linear(x, f"{name}.c_attn", f"{name}.qkv")
        qkv = self.node("Add", [qkv, self.weight(f"{name}.c_attn.bias")], [f"{name}.qkv_bias"])
        cache = [f"past_key_{layer}", f"past_value_{layer}"]
        present = [f"present_key_{layer}", f"present_value_{layer}"]
        mixed = self.node(
            "GroupQueryAttention",
            [qkv, "", "", *cache, "last_position", "total_length"],
            [f"{name}.mixed", *present],
            MICROSOFT,
            num_heads=heads,
            kv_num_heads=heads,
        )
        return self.linear(mixed, f"{name}.c_proj", f"{name}.out")

    def mlp(self, x: str, layer: int) -> str:
        """Without the output's bias."""
        name = f"h.{layer}.mlp"
        x = self.linear(x, f"{name}.c_fc", f"{name}.fc")
        bias = self.weight(f"{name}.c_fc.bias")
        x = self.node("FastGelu", [x, bias], [f"{name}.gelu"], MICROSOFT)
        return self.linear(x, f"{name}.c_proj", f"{name}.out")

    def layers(self) -> None:
        hidden, count = self.embeddings(), self.config["n_layer"]
        first = [hidden, self.weight("h.0.ln_1.weight"), self.weight("h.0.ln_1.bias")]
        epsilon = self.config["layer_norm_epsilon"]
        x = self.node("LayerNormalization", first, ["h.0.in"], epsilon=epsilon, axis=-1)
        for layer in range(count):
            out = self.attention(x, layer)
            bias = self.weight(f"h.{layer}.attn.c_proj.bias")
            x, hidden = self.norm_of_sum(out, hidden, bias, f"h.{layer}.ln_2", f"h.{layer}.mid")
            out = self.mlp(x, layer)
            bias = self.weight(f"h.{layer}.mlp.c_proj.bias")
            norm = "ln_f" if layer + 1 == count else f"h.{layer + 1}.ln_1"
            x, hidden = self.norm_of_sum(out, hidden, bias, norm, f"h.{layer}.out")
        self.head(x)

    def head(self, x: str) -> None:
        last = self.constant("last", np.array([-1], np.int64))
        x = self.node("Gather", [x, last], ["last_hidden"], axis=1)
        wte = self.weights.get("lm_head.weight", self.weights["wte.weight"])
        self.node("MatMul", [x, self.constant("lm_head.weight", wte.T)], ["logits"])

    def model(self) -> onnx.ModelProto:
        self.layers()
        head_size = self.config["n_embd"] // self.config["n_head"]
        cache = [1, self.config["n_head"], "max_length", head_size]
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "length"]),
            helper.make_tensor_value_info("position_ids", TensorProto.INT64, [1, "length"]),
            helper.make_tensor_value_info("last_position", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("total_length", TensorProto.INT32, [1]),
        ]
        logits = [1, 1, self.config["vocab_size"]]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)]
        for layer in range(self.config["n_layer"]):
            for kind in ("key", "value"):
                past, present = f"past_{kind}_{layer}", f"present_{kind}_{layer}"
                inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, cache))
                outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, cache))
        graph = helper.make_graph(self.nodes, "gpt2", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def write_f32(checkpoint: Path, target: Path) -> None:
    """Converts a Hugging Face folder (single file) without loss."""
    onnx.save(Graph(checkpoint).model(), target)


def write_int8(source: Path, target: Path) -> None:
    """Weights int8 per tensor, activations quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, extra_options=options)


def write_int4(source: Path, target: Path) -> None:
    """Matrices in 4 bits with a scale per block of 32, multiplied as int8."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(str(source), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=False)
