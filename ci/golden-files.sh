# The files that the golden hashes are about, converted here, where it is fast. To be sourced:
#
#     . ci/golden-files.sh
#     golden_files FOLDER        # named as the end-to-end tests look for them: POCKETGPT_TEST_FILES
#
# Builds the quantizer as users do.

golden_files() (
    cargo build --quiet --release -p pocketgpt-quantize
    quantize=${CARGO_TARGET_DIR:-$PWD/target}/release/pocketgpt-quantize
    for to in q8 q4 q3 f16 f32; do
        "$quantize" convert examples/model -o "$1/model-$to.pgpt" --to "$to" --method rtn --quiet
    done
    for to in q8 q4 q3; do
        "$quantize" convert tests/fixtures/variants/head-40 -o "$1/head-40-$to-bare.pgpt" \
            --to "$to" --method rtn --no-tokenizer --quiet
    done
)
