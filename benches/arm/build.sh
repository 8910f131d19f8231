#!/bin/sh
# Builds what benches/arm/run counts, in the folder given: our program, static, for 64-bit ARM;
# llama.cpp, static, for each CPU; the models of both; the counter.
set -eu
cd "$(dirname "$0")/../.."
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# The sources of llama.cpp, as the Python package brings them.
LLAMA=0.3.36

. ci/packages.sh
. ci/arm-tools.sh
arm_tools
missing=
command -v aarch64-linux-gnu-g++ >/dev/null || missing="$missing g++-aarch64-linux-gnu"
command -v llvm-mca-19 >/dev/null || missing="$missing llvm-19"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # words
    install_packages $missing
fi

echo "arm: pocketgpt" >&2
gcc -O2 -shared -fPIC -o "$folder/libinsn.so" benches/arm/insn.c
CARGO_TARGET_DIR=$folder/cargo RUSTC=$(arm_compiler) RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --quiet --release -p pocketgpt --target "$TARGET"
cp "$folder/cargo/$TARGET/release/pocketgpt" "$folder/pocketgpt"
CARGO_TARGET_DIR=$folder/cargo cargo build --quiet --release -p pocketgpt-quantize
quantize=$folder/cargo/release/pocketgpt-quantize

if [ ! -x "$folder/venv/bin/cmake" ]; then
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet cmake ninja gguf numpy safetensors
fi
source=$folder/llama_cpp_python-$LLAMA/vendor/llama.cpp
if [ ! -d "$source" ]; then
    (cd "$folder" && "$folder/venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python \
        --dest . "llama-cpp-python==$LLAMA" && tar xzf "llama_cpp_python-$LLAMA.tar.gz")
fi
PATH=$folder/venv/bin:$PATH
for cpu in cortex-a72 cortex-a76; do
    out=$folder/llama-$cpu
    [ ! -x "$folder/peer-$cpu" ] || [ benches/arm/peer.cpp -nt "$folder/peer-$cpu" ] || continue
    echo "arm: llama.cpp for $cpu" >&2
    cmake -G Ninja -S "$source" -B "$out" --log-level=ERROR \
        -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS="-mcpu=$cpu" -DCMAKE_CXX_FLAGS="-mcpu=$cpu" \
        -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >/dev/null
    cmake --build "$out" --target llama >"$out/log" 2>&1 || { tail -50 "$out/log" >&2; exit 1; }
    # The linker warns that a static program should not load plugins; it does not.
    aarch64-linux-gnu-g++ -O2 -static -I"$source/include" -I"$source/ggml/include" \
        benches/arm/peer.cpp -o "$folder/peer-$cpu" "$out/src/libllama.a" \
        -Wl,--whole-archive "$out/ggml/src/libggml.a" "$out/ggml/src/libggml-cpu.a" \
        -Wl,--no-whole-archive "$out/ggml/src/libggml-base.a" 2>"$out/link" ||
        { cat "$out/link" >&2; exit 1; }
done

for model in bundled gpt2; do
    [ ! -s "$folder/$model.gguf" ] || [ ! -s "$folder/$model.pgpt" ] || continue
    echo "arm: model $model" >&2
    checkpoint=examples/model
    if [ "$model" = gpt2 ]; then
        checkpoint=$folder/checkpoint
        [ -d "$checkpoint" ] || "$quantize" synth --preset gpt2 -o "$checkpoint" >/dev/null
    fi
    "$quantize" convert "$checkpoint" -o "$folder/$model.pgpt" --to q4 --quiet
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=benches/peers python3 -c '
import sys
from pathlib import Path
from peers import gguf_model
gguf_model.write_f32(Path(sys.argv[1]), Path(sys.argv[2]))' "$checkpoint" "$folder/f32.gguf" >&2
    qemu-aarch64 -cpu cortex-a76 "$folder/peer-cortex-a76" quantize "$folder/f32.gguf" \
        "$folder/$model.gguf" >/dev/null
    rm "$folder/f32.gguf"
done
