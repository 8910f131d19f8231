"""Writes a model in a peer's format: `python -m peers.convert FORMAT SOURCE TARGET`

In a process of its own: converters load much, and tell much.
"""

import sys
from pathlib import Path


def convert(format_: str, source: Path, target: Path) -> None:
    """`source` is the checkpoint, or for quantized GGUF and ONNX the file in f32."""
    family, kind = format_.split(":")
    if family == "gguf":
        from . import gguf_model

        if kind == "f32":
            gguf_model.write_f32(source, target)
        else:
            gguf_model.quantize(source, target, kind)
    elif family == "onnx":
        from . import onnx_model

        {
            "f32": onnx_model.write_f32,
            "int8": onnx_model.write_int8,
            "int4": onnx_model.write_int4,
        }[kind](source, target)
    else:
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(source)).convert(str(target), quantization=kind)


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
