/* Continues a text without any allocator: the model is linked into the program (model.S), all
 * memory is static. It writes the loop itself, token by token:
 *
 *     make MODEL=model.pgpt && ./no_heap "Once upon a time"
 *
 * On a microcontroller only `put` would be another. */
#include <pocketgpt.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROMPT = 64, WINDOW = 128, NEW_TOKENS = 50 };

/* From model.S. */
extern const unsigned char model_begin[], model_end[];

static unsigned char model_memory[1024];
static unsigned char scratch_memory[16 * 1024];
static unsigned char session_memory[1024 * 1024];
static unsigned char sampler_memory[128 * 1024];
static uint32_t tokens[MAX_PROMPT + NEW_TOKENS];

static int put(const char *text, size_t length) {
    while (length > 0) {
        ssize_t written = write(1, text, length);
        if (written <= 0) return 0;
        text += written;
        length -= (size_t)written;
    }
    return 1;
}

static pgpt_error error;
static int failed(pgpt_status status) {
    if (status == PGPT_OK) return 0;
    put("error: ", 7);
    put(error.message, strlen(error.message));
    put("\n", 1);
    return 1;
}

int main(int argc, char **argv) {
    const char *prompt = argc > 1 ? argv[1] : "Once upon a time";

    pgpt_model *model;
    if (failed(pgpt_model_open(model_begin, (size_t)(model_end - model_begin), PGPT_ISA_BEST,
                               model_memory, sizeof model_memory, &model, &error)))
        return 1;
    size_t count;
    if (failed(pgpt_tokenize(model, prompt, strlen(prompt), PGPT_SPECIAL_PARSE, scratch_memory,
                             sizeof scratch_memory, tokens, MAX_PROMPT, &count, &error)))
        return 1;

    pgpt_options options;
    if (failed(pgpt_options_init(model, &options, sizeof options, &error))) return 1;
    options.window = WINDOW;
    options.batch = 8;
    options.strategy = PGPT_STRATEGY_SAMPLE;
    options.temperature = 0.8f;
    options.top_k = 40;
    options.seed = 1;

    /* Too little memory is an error that says how much is needed. */
    pgpt_session *session;
    pgpt_sampler *sampler;
    if (failed(pgpt_session_new(model, &options, session_memory, sizeof session_memory, &session,
                                &error)) ||
        failed(pgpt_sampler_new(model, &options, sampler_memory, sizeof sampler_memory, &sampler,
                                &error)))
        return 1;

    /* Read the prompt; then choose a token, write it, read it, as long as there is room. */
    put(prompt, strlen(prompt));
    size_t read = 0, prompt_count = count;
    while (count < prompt_count + NEW_TOKENS) {
        const float *logits;
        if (failed(pgpt_session_feed(session, NULL, tokens + read, count - read, &logits, &error)))
            return 1;
        read = count;
        uint32_t token;
        if (failed(pgpt_sampler_next(sampler, logits, tokens, count, count - prompt_count, &token,
                                     &error)))
            return 1;
        if (token == options.eos_token_id) break;
        tokens[count++] = token;
        const char *text;
        size_t length;
        if (failed(pgpt_token_text(model, token, &text, &length, &error))) return 1;
        if (!put(text, length)) return 1;
    }
    put("\n", 1);
    return 0;
}
