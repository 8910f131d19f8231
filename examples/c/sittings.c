/* Writes a text in several sittings: begins one and saves it, or goes on with what was saved, as if it
 * had not been interrupted.
 *
 *     make && ./sittings model.pgpt story.pgss "Once upon a time"
 *     ./sittings model.pgpt story.pgss
 *
 * Each sitting writes 50 tokens. `pocketgpt generate --load-session story.pgss` goes on with it too. */
#include <pocketgpt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITTING = 50 };

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

static int print(void *user, uint32_t sequence, const char *text, size_t length) {
    (void)user;
    (void)sequence;
    fwrite(text, 1, length, stdout);
    return fflush(stdout) != 0;
}

/* Called for one piece after the other. Anything but 0 would give up. */
static int write_piece(void *user, const void *bytes, size_t length) {
    return fwrite(bytes, 1, length, user) != length;
}

/* Beside the old file first, so that there is a whole one at any time. */
static void save(const char *path, pgpt_session *session, const pgpt_saved_text *text) {
    char *beside = allocate(strlen(path) + 5);
    strcat(strcpy(beside, path), ".new");
    FILE *file = fopen(beside, "wb");
    if (file == NULL) {
        perror(beside);
        exit(1);
    }
    check(pgpt_session_save(session, text, write_piece, file, &error));
    if (fclose(file) != 0 || rename(beside, path) != 0) {
        perror(path);
        exit(1);
    }
    free(beside);
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s FILE.pgpt SAVED [PROMPT]\n", argv[0]);
        return 2;
    }
    const char *path = argv[2], *prompt = argc > 3 ? argv[3] : NULL;
    size_t size;

    pgpt_file *file;
    check(pgpt_file_map(argv[1], &file, &error));
    pgpt_model *model;
    void *model_memory = allocate(pgpt_model_size());
    check(pgpt_model_open(pgpt_file_bytes(file), pgpt_file_length(file), PGPT_ISA_BEST,
                          model_memory, pgpt_model_size(), &model, &error));
    pgpt_options options;
    check(pgpt_options_init(model, &options, sizeof options, &error));
    options.strategy = PGPT_STRATEGY_SAMPLE;
    options.temperature = 0.8f;
    options.top_k = 40;
    options.seed = 1;

    /* The text so far: of the prompt, or what was saved. Nothing in the saved file is believed. */
    pgpt_file *saved_file = NULL;
    pgpt_saved *saved = NULL;
    void *saved_memory = NULL;
    pgpt_saved_info info = {.metadata = "{}", .metadata_length = 2};
    size_t capacity, count, new_tokens = 0;
    uint32_t *tokens;
    if (prompt != NULL) {
        capacity = strlen(prompt);
        tokens = allocate((capacity + SITTING) * sizeof *tokens);
        check(pgpt_tokenize_size(model, prompt, strlen(prompt), &size, &error));
        void *scratch = allocate(size);
        check(pgpt_tokenize(model, prompt, strlen(prompt), PGPT_SPECIAL_PARSE, scratch, size,
                            tokens, capacity, &count, &error));
        free(scratch);
    } else {
        check(pgpt_file_map(path, &saved_file, &error));
        saved_memory = allocate(pgpt_saved_size());
        check(pgpt_saved_open(model, pgpt_file_bytes(saved_file), pgpt_file_length(saved_file),
                              saved_memory, pgpt_saved_size(), &saved, &error));
        check(pgpt_saved_get_info(saved, &info, sizeof info, &error));
        capacity = info.count;
        new_tokens = info.new_tokens;
        tokens = allocate((capacity + SITTING) * sizeof *tokens);
        check(pgpt_saved_tokens(saved, tokens, capacity, &count, &error));
        check(pgpt_saved_set_options(saved, &options, &error));
    }
    options.max_new_tokens = (uint32_t)new_tokens + SITTING;
    options.max_prompt = (uint32_t)(count - new_tokens);

    pgpt_session *session;
    check(pgpt_session_size(model, &options, &size, &error));
    void *session_memory = allocate(size);
    check(pgpt_session_new(model, &options, session_memory, size, &session, &error));
    pgpt_generator *generator;
    check(pgpt_generator_size(model, &options, &size, &error));
    void *generator_memory = allocate(size);
    check(pgpt_generator_new(model, &options, generator_memory, size, &generator, &error));
    if (saved != NULL) check(pgpt_session_restore(session, saved, &error));

    pgpt_callbacks callbacks = {.size = sizeof callbacks, .text = print};
    if (prompt != NULL) fputs(prompt, stdout);
    check(pgpt_generator_resume(generator, session, NULL, tokens, count, new_tokens, &callbacks,
                                &error));
    putchar('\n');

    /* What was written is behind what was there; the session has read all but the last token. */
    pgpt_sequence sequence;
    check(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    memcpy(tokens + count, sequence.tokens, sequence.count * sizeof *tokens);
    pgpt_saved_text text = {.size = sizeof text,
                            .tokens = tokens,
                            .count = count + sequence.count,
                            .new_tokens = new_tokens + sequence.count,
                            .seed = options.seed,
                            .metadata = info.metadata,
                            .metadata_length = info.metadata_length};
    if (sequence.stop_reason == PGPT_STOP_END_OF_TEXT)
        fputs("the model has ended the text: it is not saved\n", stderr);
    else
        save(path, session, &text);

    free(generator_memory);
    free(session_memory);
    free(tokens);
    free(saved_memory);
    pgpt_file_unmap(saved_file);
    free(model_memory);
    pgpt_file_unmap(file);
    return fflush(stdout) == 0 ? 0 : 1;
}
