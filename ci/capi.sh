#!/bin/sh
# The C library, as C programs use it: the examples, and the test of every error, under valgrind.
# Missing tools are installed from Debian, which takes root. Set CARGO_TARGET_DIR to keep the
# build elsewhere.
set -eu
cd "$(dirname "$0")/.."

. ci/packages.sh
if ! command -v valgrind >/dev/null || ! command -v make >/dev/null || ! command -v cc >/dev/null; then
    install_packages valgrind make gcc libc6-dev
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

# One by one, as users do: together they would be built with other features, anew.
cargo build --quiet --release -p pocketgpt-quantize
cargo build --quiet --release -p pocketgpt
cargo build --quiet --release -p pocketgpt-capi
library=$target/release/libpocketgpt.a
model=$build/model.pgpt
"$target/release/pocketgpt-quantize" convert examples/model -o "$model" --to q8 --quiet
make -s -C examples/c BUILD="$build" LIB="$library" MODEL="$model" all "$build/errors"

# valgrind does not know AVX-512: the library finds AVX2 there.
memcheck() {
    valgrind --quiet --error-exitcode=9 --log-file="$build/valgrind" "$@" ||
        { cat "$build/valgrind"; echo "capi: $1 failed"; exit 1; }
}
memcheck "$build/errors" "$model"
memcheck "$build/generate" "$model" "Once upon a time" >"$build/checked"
memcheck "$build/no_heap" "Once upon a time" >"$build/checked-no-heap"
memcheck "$build/sittings" "$model" "$build/story" "Once upon a time" >"$build/first"
cp "$build/story" "$build/half"
memcheck "$build/sittings" "$model" "$build/story" >"$build/second"

# The same with the fastest instructions that there are, from the dynamic library as well.
"$build/errors" "$model"
"$build/generate" "$model" "Once upon a time" >"$build/text"
cmp "$build/text" "$build/checked"
"$build/no_heap" "Once upon a time" | cmp - "$build/checked-no-heap"
cc -std=c11 -Icapi/include -o "$build/dynamic" examples/c/generate.c -L"$target/release" -lpocketgpt
LD_LIBRARY_PATH=$target/release "$build/dynamic" "$model" "Once upon a time" | cmp - "$build/text"
printf '#include <pocketgpt.h>\nint main() { return pgpt_version()[0] == 0; }\n' >"$build/header.cc"
if command -v c++ >/dev/null; then
    c++ -Wall -Wextra -Werror -Icapi/include -o "$build/header" "$build/header.cc" \
        "$library" -lpthread -ldl -lm
    "$build/header"
fi

# In two sittings it is the same text, whether the second is this program's or the command line's.
head -c -1 "$build/first" | cat - "$build/second" | cmp - "$build/text"
"$target/release/pocketgpt" generate -m "$model" --quiet --load-session "$build/half" \
    --temperature 0.8 --top-k 40 -n 50 | cmp - "$build/text"

# It is what the command line writes, and no_heap has no heap.
"$target/release/pocketgpt" generate -m "$model" --quiet --seed 1 -n 100 "Once upon a time" |
    cmp - "$build/text"
valgrind "$build/no_heap" 2>&1 >/dev/null | grep -q "total heap usage: 0 allocs" ||
    { echo "capi: no_heap allocates"; exit 1; }
echo "capi: C programs write the text of the command line; valgrind finds nothing"
