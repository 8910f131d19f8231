/* Continues a text with a .pgpt file:
 *
 *     make && ./generate model.pgpt "Once upon a time"
 *
 * The steps are those of the header: open the file, ask how much memory each part takes, give it,
 * and run. */
#include <pocketgpt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every call can be checked in one line: the message says what was wrong. */
static pgpt_error error;
static void check(pgpt_status status) {
    if (status != PGPT_OK) {
        fprintf(stderr, "error: %s (%s)\n", error.message, pgpt_status_name(status));
        exit(1);
    }
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL) {
        fprintf(stderr, "error: there are no %zu bytes of memory\n", size);
        exit(1);
    }
    return memory;
}

/* Called for each new piece of text. Anything but 0 would end it. */
static int print(void *user, uint32_t sequence, const char *text, size_t length) {
    (void)user;
    (void)sequence;
    fwrite(text, 1, length, stdout);
    return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s FILE.pgpt PROMPT [SEED]\n", argv[0]);
        return 2;
    }
    const char *prompt = argv[2];
    size_t size;

    /* The model is used where it lies, in the page cache. */
    pgpt_file *file;
    check(pgpt_file_map(argv[1], &file, &error));
    pgpt_model *model;
    void *model_memory = allocate(pgpt_model_size());
    check(pgpt_model_open(pgpt_file_bytes(file), pgpt_file_length(file), PGPT_ISA_BEST,
                          model_memory, pgpt_model_size(), &model, &error));

    /* Text to tokens: never more than bytes. */
    size_t capacity = strlen(prompt), count;
    uint32_t *tokens = allocate((capacity + 1) * sizeof *tokens);
    check(pgpt_tokenize_size(model, prompt, strlen(prompt), &size, &error));
    void *scratch = allocate(size);
    check(pgpt_tokenize(model, prompt, strlen(prompt), PGPT_SPECIAL_PARSE, scratch, size, tokens,
                        capacity, &count, &error));
    free(scratch);

    /* What is wanted. */
    pgpt_options options;
    check(pgpt_options_init(model, &options, sizeof options, &error));
    options.strategy = PGPT_STRATEGY_SAMPLE;
    options.temperature = 0.8f;
    options.top_k = 40;
    options.max_new_tokens = 100;
    options.max_prompt = (uint32_t)count;
    options.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    options.threads = 2;

    /* All the memory that there will be. */
    pgpt_session *session;
    check(pgpt_session_size(model, &options, &size, &error));
    void *session_memory = allocate(size);
    check(pgpt_session_new(model, &options, session_memory, size, &session, &error));
    pgpt_generator *generator;
    check(pgpt_generator_size(model, &options, &size, &error));
    void *generator_memory = allocate(size);
    check(pgpt_generator_new(model, &options, generator_memory, size, &generator, &error));
    pgpt_threads *threads;
    check(pgpt_threads_new(options.threads, &threads, &error));

    pgpt_callbacks callbacks = {.size = sizeof callbacks, .text = print};
    fputs(prompt, stdout);
    check(pgpt_generator_run(generator, session, threads, tokens, count, &callbacks, &error));
    putchar('\n');

    pgpt_threads_free(threads);
    free(generator_memory);
    free(session_memory);
    free(tokens);
    free(model_memory);
    pgpt_file_unmap(file);
    return fflush(stdout) == 0 ? 0 : 1;
}
