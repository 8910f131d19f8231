// What llama.cpp does for a prompt and some tokens, and nothing else: to count its instructions.
//
//     peer MODEL.gguf PROMPT_TOKENS NEW_TOKENS
//     peer quantize F32.gguf Q4_0.gguf

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"

static void fail(const char *what) {
    std::fprintf(stderr, "error: llama.cpp: %s\n", what);
    std::exit(1);
}

static void only_errors(ggml_log_level level, const char *text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

static int quantize(const char *from, const char *to) {
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_MOSTLY_Q4_0;
    params.nthread = 1;
    return llama_model_quantize(from, to, &params) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    llama_log_set(only_errors, nullptr);
    llama_backend_init();
    if (argc == 4 && std::strcmp(argv[1], "quantize") == 0) return quantize(argv[2], argv[3]);
    if (argc != 4) fail("usage: peer MODEL.gguf PROMPT_TOKENS NEW_TOKENS");
    const int prompt = std::atoi(argv[2]), fresh = std::atoi(argv[3]);

    llama_model_params model_params = llama_model_default_params();
    llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (!model) fail("the model cannot be loaded");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_batch = params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = 1;
    if (const char *flash = std::getenv("PEER_FLASH")) {
        params.flash_attn_type = std::atoi(flash) ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    llama_context *context = llama_init_from_model(model, params);
    if (!context) fail("there is no context");

    const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    std::vector<llama_token> ids;
    for (int i = 0; i < prompt; i++) ids.push_back((i * 37 + 11) % vocab);
    if (llama_decode(context, llama_batch_get_one(ids.data(), prompt))) fail("the prompt");
    for (int i = 0; i < fresh; i++) {
        const float *logits = llama_get_logits_ith(context, -1);
        llama_token best = 0;
        for (int id = 1; id < vocab; id++) {
            if (logits[id] > logits[best]) best = id;
        }
        if (llama_decode(context, llama_batch_get_one(&best, 1))) fail("a token");
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
