/* Every error that a C caller can get, and that nothing else happens: run it under valgrind.
 *
 *     errors MODEL.pgpt
 *
 * The model must have a tokenizer and more than 20 positions. */
#include <math.h>
#include <pocketgpt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks, failures;
static pgpt_error error;

/* The call must end with this status, and its message must contain these words. */
static void expect_(int line, pgpt_status found, pgpt_status wanted, const char *words) {
    checks++;
    int ok = found == wanted && error.status == found && strlen(error.message) < PGPT_MESSAGE_SIZE &&
             strstr(error.message, words) != NULL && (found == PGPT_OK) == (error.message[0] == 0);
    if (!ok) {
        failures++;
        printf("errors.c:%d: %s \"%s\", expected %s \"%s\"\n", line, pgpt_status_name(found),
               error.message, pgpt_status_name(wanted), words);
    }
    memset(&error, 0x55, sizeof error);
}
#define EXPECT(status, words, call) expect_(__LINE__, call, status, words)
#define OK(call) EXPECT(PGPT_OK, "", call)

static void that_(int line, int ok, const char *what) {
    checks++;
    if (!ok) {
        failures++;
        printf("errors.c:%d: %s\n", line, what);
    }
}
#define THAT(condition) that_(__LINE__, (condition) != 0, #condition)

/* Exactly this many bytes, full of NaN: what is in a handle's memory must not matter. */
static void *memory_of(size_t size) {
    void *memory = malloc(size);
    if (memory == NULL) exit(1);
    return memset(memory, 0xff, size);
}

/* Bytes at a multiple of 64, or `shift` behind one. */
static unsigned char *aligned(size_t size, size_t shift) {
    unsigned char *memory = calloc(1, size + 128);
    if (memory == NULL) exit(1);
    return memory + (64 - (size_t)memory % 64) + shift;
}

static pgpt_file *file;
static pgpt_model *model;
static pgpt_options defaults;
static uint32_t prompt[8];
static size_t prompt_count;

static void files(const char *path) {
    pgpt_file *none = (pgpt_file *)&none;
    EXPECT(PGPT_ERROR_FILE, "no such file.pgpt: ", pgpt_file_map("no such file.pgpt", &none, &error));
    THAT(none == NULL);
    EXPECT(PGPT_ERROR_FILE, "not a regular file", pgpt_file_map("/", &none, &error));
    EXPECT(PGPT_ERROR_UTF8, "path is not UTF-8 at byte 1", pgpt_file_map("a\xff", &none, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "path is NULL", pgpt_file_map(NULL, &none, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "file is NULL", pgpt_file_map(path, NULL, &error));
    THAT(pgpt_file_map(NULL, &none, NULL) == PGPT_ERROR_ARGUMENT);
    THAT(pgpt_file_bytes(NULL) == NULL && pgpt_file_length(NULL) == 0);
    pgpt_file_unmap(NULL);
    OK(pgpt_file_map(path, &file, &error));
}

static void models(void) {
    const void *bytes = pgpt_file_bytes(file);
    size_t length = pgpt_file_length(file), size = pgpt_model_size();
    void *memory = memory_of(size);
    pgpt_model *none = (pgpt_model *)&none;
#define OPEN(bytes, length, isa, memory, size) \
    pgpt_model_open(bytes, length, isa, memory, size, &none, &error)
    EXPECT(PGPT_ERROR_ARGUMENT, "bytes is NULL", OPEN(NULL, length, 0, memory, size));
    THAT(none == NULL);
    EXPECT(PGPT_ERROR_ARGUMENT, "memory is NULL", OPEN(bytes, length, 0, NULL, size));
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL",
           pgpt_model_open(bytes, length, 0, memory, size, NULL, &error));
    EXPECT(PGPT_ERROR_MODEL, "only 0 bytes", OPEN(bytes, 0, 0, memory, size));
    EXPECT(PGPT_ERROR_MODEL, "cut short", OPEN(bytes, length - 1, 0, memory, size));
    EXPECT(PGPT_ERROR_OPTION, "isa is 99", OPEN(bytes, length, 99, memory, size));
#ifdef __x86_64__
    EXPECT(PGPT_ERROR_ISA, "neon", OPEN(bytes, length, PGPT_ISA_NEON, memory, size));
#else
    EXPECT(PGPT_ERROR_ISA, "avx2", OPEN(bytes, length, PGPT_ISA_AVX2, memory, size));
#endif
    EXPECT(PGPT_ERROR_MEMORY, "are needed", OPEN(bytes, length, 0, memory, 0));
    EXPECT(PGPT_ERROR_MEMORY, "are needed", OPEN(bytes, length, 0, memory, 100));
    THAT(pgpt_model_open(bytes, length, 0, memory, 100, &none, &error) == PGPT_ERROR_MEMORY);
    THAT(error.needed == size);

    unsigned char *copy = aligned(length, 8);
    memcpy(copy, bytes, length);
    EXPECT(PGPT_ERROR_MODEL, "multiple of 64", OPEN(copy, length, 0, memory, size));
    copy = aligned(length, 0);
    memcpy(copy, bytes, length);
    copy[0] = 'X';
    EXPECT(PGPT_ERROR_MODEL, "does not begin with PGPT", OPEN(copy, length, 0, memory, size));
    copy[0] = 'P';
    copy[130] ^= 1;
    EXPECT(PGPT_ERROR_MODEL, "checksum", OPEN(copy, length, 0, memory, size));
    copy[130] ^= 1;
    copy[length - 100] ^= 1;
    OK(OPEN(copy, length, PGPT_ISA_SCALAR, memory, size));
    EXPECT(PGPT_ERROR_MODEL, "damaged", pgpt_model_verify(none, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_model_verify(NULL, &error));

    /* At any address, with exactly as much as was asked for. */
    for (size_t shift = 0; shift < 64; shift += 21) {
        unsigned char *exact = (unsigned char *)memory_of(size + shift) + shift;
        OK(pgpt_model_open(bytes, length, PGPT_ISA_BEST, exact, size, &model, &error));
    }
    OK(pgpt_model_verify(model, &error));

    pgpt_model_info info;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_model_get_info(NULL, &info, sizeof info, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "info is NULL", pgpt_model_get_info(model, NULL, sizeof info, &error));
    EXPECT(PGPT_ERROR_VERSION, "info has a size of 8",
           pgpt_model_get_info(model, &info, 8, &error));
    OK(pgpt_model_get_info(model, &info, sizeof info, &error));
    THAT(info.n_ctx > 20 && info.has_tokenizer == 1 && info.isa != PGPT_ISA_BEST);
}

static void tokens(void) {
    const char *text = "Once upon a time";
    size_t length = strlen(text), size, count = 77, text_length;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_tokenize_size(NULL, text, length, &size, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "text is NULL", pgpt_tokenize_size(model, NULL, length, &size, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "size is NULL", pgpt_tokenize_size(model, text, length, NULL, &error));
    EXPECT(PGPT_ERROR_UTF8, "text is not UTF-8 at byte 2",
           pgpt_tokenize_size(model, "ab\xc3(", 4, &size, &error));
    OK(pgpt_tokenize_size(model, NULL, 0, &size, &error));
    OK(pgpt_tokenize_size(model, text, length, &size, &error));
    void *memory = memory_of(size);
#define TOKENIZE(text, length, special, memory, size, capacity) \
    pgpt_tokenize(model, text, length, special, memory, size, prompt, capacity, &count, &error)
    EXPECT(PGPT_ERROR_UTF8, "at byte 0", TOKENIZE("\xff", 1, 0, memory, size, 8));
    EXPECT(PGPT_ERROR_MEMORY, "are needed", TOKENIZE(text, length, 0, memory, 10, 8));
    EXPECT(PGPT_ERROR_ARGUMENT, "memory is NULL", TOKENIZE(text, length, 0, NULL, size, 8));
    EXPECT(PGPT_ERROR_OPTION, "special is 5", TOKENIZE(text, length, 5, memory, size, 8));
    THAT(count == 77);
    EXPECT(PGPT_ERROR_ARGUMENT, "tokens is NULL",
           pgpt_tokenize(model, text, length, 0, memory, size, NULL, 8, &count, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "count is NULL",
           pgpt_tokenize(model, text, length, 0, memory, size, prompt, 8, NULL, &error));
    THAT(pgpt_tokenize(model, text, length, 0, memory, size, prompt, 1, &count, &error) ==
         PGPT_ERROR_MEMORY);
    size_t needed = error.needed;
    THAT(count == 1 && needed > 1);
    OK(TOKENIZE(text, length, PGPT_SPECIAL_PARSE, memory, size, needed));
    prompt_count = count;
    THAT(count == needed);

    const char *piece;
    EXPECT(PGPT_ERROR_TOKEN, "not in the vocabulary",
           pgpt_token_text(model, UINT32_MAX, &piece, &text_length, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL",
           pgpt_token_text(NULL, 0, &piece, &text_length, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "length is NULL", pgpt_token_text(model, 0, &piece, NULL, &error));
    OK(pgpt_token_text(model, prompt[0], &piece, &text_length, &error));
    THAT(text_length > 0 && memcmp(piece, text, text_length) == 0);
    free(memory);
}

static void options(void) {
    pgpt_options changed;
    size_t size;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL",
           pgpt_options_init(NULL, &changed, sizeof changed, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "options is NULL",
           pgpt_options_init(model, NULL, sizeof changed, &error));
    EXPECT(PGPT_ERROR_VERSION, "options has a size of 4",
           pgpt_options_init(model, &changed, 4, &error));
    OK(pgpt_options_init(model, &defaults, sizeof defaults, &error));

    /* A program with a newer header: what this library does not know is 0, or is refused. */
    struct {
        pgpt_options known;
        uint64_t unknown;
    } newer;
    memset(&newer, 0xff, sizeof newer);
    OK(pgpt_options_init(model, &newer.known, sizeof newer, &error));
    THAT(newer.known.size == sizeof newer && newer.unknown == 0);
    OK(pgpt_session_size(model, &newer.known, &size, &error));
    newer.unknown = 1;
    EXPECT(PGPT_ERROR_VERSION, "a newer library",
           pgpt_session_size(model, &newer.known, &size, &error));

#define REFUSED(words, change)                                                         \
    changed = defaults;                                                                \
    change;                                                                            \
    EXPECT(PGPT_ERROR_OPTION, words, pgpt_session_size(model, &changed, &size, &error))
    REFUSED("kv is 3", changed.kv = 3);
    REFUSED("window is 0", changed.window = 0);
    REFUSED("window is 4294967295", changed.window = UINT32_MAX);
    REFUSED("overflow is 3", changed.overflow = 3);
    REFUSED("keep is 4000000000", changed.keep = 4000000000u);
    REFUSED("tail is 4000000000", changed.overflow = PGPT_OVERFLOW_REFILL;
            changed.tail = 4000000000u);
    REFUSED("threads is 33", changed.threads = 33);
    REFUSED("strategy is 4", changed.strategy = 4);
    REFUSED("eos_token_id", changed.eos_token_id = -2);
    REFUSED("min_new_tokens is above", changed.min_new_tokens = 21);
    REFUSED("num_return_sequences is 0", changed.num_return_sequences = 0);
    REFUSED("greedy has one result", changed.num_return_sequences = 2);
    REFUSED("repetition_penalty is NaN", changed.repetition_penalty = NAN);
    REFUSED("prompt_lookup_num_tokens is 65", changed.prompt_lookup_num_tokens = 65);
    REFUSED("temperature is 0", changed.strategy = PGPT_STRATEGY_SAMPLE; changed.temperature = 0);
    REFUSED("top_p is 2", changed.strategy = PGPT_STRATEGY_SAMPLE; changed.top_p = 2);
    REFUSED("min_p is -1", changed.strategy = PGPT_STRATEGY_SAMPLE; changed.min_p = -1);
    REFUSED("typical_p is 0", changed.strategy = PGPT_STRATEGY_SAMPLE; changed.typical_p = 0);
    REFUSED("num_beams is 65", changed.strategy = PGPT_STRATEGY_BEAM; changed.num_beams = 65);
    REFUSED("length_penalty", changed.strategy = PGPT_STRATEGY_BEAM; changed.length_penalty = 99);
    REFUSED("early_stopping is 3", changed.strategy = PGPT_STRATEGY_BEAM; changed.early_stopping = 3);
    REFUSED("penalty_alpha is 0", changed.strategy = PGPT_STRATEGY_CONTRASTIVE;
            changed.penalty_alpha = 0);
    REFUSED("top_k is 0", changed.strategy = PGPT_STRATEGY_CONTRASTIVE;
            changed.contrastive_top_k = 0);

    changed = defaults;
    changed.size = 7;
    EXPECT(PGPT_ERROR_VERSION, "options has a size of 7",
           pgpt_session_size(model, &changed, &size, &error));
}

static pgpt_session *session_for(const pgpt_options *options) {
    size_t size;
    pgpt_session *session;
    OK(pgpt_session_size(model, options, &size, &error));
    OK(pgpt_session_new(model, options, memory_of(size), size, &session, &error));
    return session;
}

static void sessions(void) {
    size_t size;
    pgpt_session *session = (pgpt_session *)&size;
    pgpt_options options = defaults;
    options.window = 16;
    pgpt_plan plan;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_session_size(NULL, &options, &size, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "options is NULL", pgpt_session_size(model, NULL, &size, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "size is NULL", pgpt_session_size(model, &options, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "plan is NULL",
           pgpt_session_plan(model, &options, NULL, sizeof plan, &error));
    OK(pgpt_session_size(model, &options, &size, &error));
    OK(pgpt_session_plan(model, &options, &plan, sizeof plan, &error));
    THAT(plan.kv_bytes + plan.scratch_bytes + plan.logits_bytes + plan.branch_bytes < size);
    void *memory = memory_of(size);
    EXPECT(PGPT_ERROR_MEMORY, "are needed",
           pgpt_session_new(model, &options, memory, size - 64, &session, &error));
    THAT(session == NULL);
    EXPECT(PGPT_ERROR_ARGUMENT, "memory is NULL",
           pgpt_session_new(model, &options, NULL, size, &session, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL",
           pgpt_session_new(model, &options, memory, size, NULL, &error));
    OK(pgpt_session_new(model, &options, memory, size, &session, &error));

    const float *logits = NULL;
    uint32_t wrong[2] = {prompt[0], UINT32_MAX};
    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL",
           pgpt_session_feed(NULL, NULL, prompt, 1, &logits, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "tokens is NULL",
           pgpt_session_feed(session, NULL, NULL, 1, &logits, &error));
    EXPECT(PGPT_ERROR_TOKEN, "no tokens",
           pgpt_session_feed(session, NULL, prompt, 0, &logits, &error));
    EXPECT(PGPT_ERROR_TOKEN, "not in the vocabulary",
           pgpt_session_feed(session, NULL, wrong, 2, &logits, &error));
    THAT(logits == NULL && pgpt_session_fed(session) == 0);
    OK(pgpt_session_feed(session, NULL, prompt, prompt_count, &logits, &error));
    THAT(logits != NULL && isfinite(logits[0]));
    float together = logits[0];
    THAT(pgpt_session_fed(session) == prompt_count);
    THAT(pgpt_session_fed(NULL) == 0 && pgpt_session_remaining(NULL) == 0);

    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL", pgpt_session_truncate(NULL, 0, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "have not been read",
           pgpt_session_truncate(session, prompt_count + 1, &error));
    OK(pgpt_session_truncate(session, 0, &error));
    for (size_t i = 0; i < prompt_count; i++)
        OK(pgpt_session_feed(session, NULL, prompt + i, 1, &logits, &error));
    THAT(memcmp(&together, &logits[0], sizeof together) == 0);

    while (pgpt_session_fed(session) <= 16)
        OK(pgpt_session_feed(session, NULL, prompt, 1, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "the window has slid", pgpt_session_truncate(session, 3, &error));
    size_t more = pgpt_session_remaining(session) + 1;
    uint32_t *many = calloc(more, sizeof *many);
    EXPECT(PGPT_ERROR_CONTEXT_FULL, "context is full",
           pgpt_session_feed(session, NULL, many, more, NULL, &error));
    free(many);

    pgpt_threads *threads = (pgpt_threads *)&size;
    EXPECT(PGPT_ERROR_THREADS, "threads", pgpt_threads_new(0, &threads, &error));
    THAT(threads == NULL);
    EXPECT(PGPT_ERROR_THREADS, "threads", pgpt_threads_new(33, &threads, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "threads is NULL", pgpt_threads_new(2, NULL, &error));
    OK(pgpt_threads_new(2, &threads, &error));
    OK(pgpt_session_truncate(session, 0, &error));
    EXPECT(PGPT_ERROR_OPTION, "threads is 2",
           pgpt_session_feed(session, threads, prompt, 1, NULL, &error));
    pgpt_threads_free(threads);
    pgpt_threads_free(NULL);
    free(memory);
}

static pgpt_generator *generator_for(const pgpt_options *options) {
    size_t size;
    pgpt_generator *generator;
    OK(pgpt_generator_size(model, options, &size, &error));
    OK(pgpt_generator_new(model, options, memory_of(size), size, &generator, &error));
    return generator;
}

struct heard {
    int tokens, steps, stop_at;
    char text[4096];
    size_t length;
};
static int on_token(void *user, uint32_t sequence, uint32_t token) {
    (void)sequence;
    (void)token;
    return ++((struct heard *)user)->tokens == ((struct heard *)user)->stop_at;
}
static int on_text(void *user, uint32_t sequence, const char *text, size_t length) {
    struct heard *heard = user;
    (void)sequence;
    if (heard->length + length < sizeof heard->text) {
        memcpy(heard->text + heard->length, text, length);
        heard->length += length;
    }
    return 0;
}
static int on_step(void *user) {
    ((struct heard *)user)->steps++;
    return 0;
}

static void generators(void) {
    size_t size;
    pgpt_options options = defaults;
    options.max_new_tokens = 8;
    options.min_new_tokens = 8;
    options.max_prompt = 8;
    pgpt_generator *generator = (pgpt_generator *)&size;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_generator_size(NULL, &options, &size, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "options is NULL", pgpt_generator_size(model, NULL, &size, &error));
    OK(pgpt_generator_size(model, &options, &size, &error));
    void *memory = memory_of(size);
    EXPECT(PGPT_ERROR_MEMORY, "are needed",
           pgpt_generator_new(model, &options, memory, size / 2, &generator, &error));
    THAT(generator == NULL);
    const char *stop[] = {"a", "\xff"};
    const pgpt_sequence_bias bias[] = {{NULL, 1, 1.0f}};
    options.stop = stop;
    options.stop_count = 2;
    size = 1 << 20;
    free(memory);
    memory = memory_of(size);
    EXPECT(PGPT_ERROR_UTF8, "a stop text is not UTF-8",
           pgpt_generator_new(model, &options, memory, size, &generator, &error));
    stop[1] = NULL;
    EXPECT(PGPT_ERROR_ARGUMENT, "a stop text is NULL",
           pgpt_generator_new(model, &options, memory, size, &generator, &error));
    options.stop = NULL;
    EXPECT(PGPT_ERROR_ARGUMENT, "stop is NULL",
           pgpt_generator_new(model, &options, memory, size, &generator, &error));
    options.stop_count = 0;
    options.sequence_bias = bias;
    options.sequence_bias_count = 1;
    EXPECT(PGPT_ERROR_ARGUMENT, "tokens of sequence_bias is NULL",
           pgpt_generator_new(model, &options, memory, size, &generator, &error));
    options.sequence_bias_count = SIZE_MAX / 8;
    EXPECT(PGPT_ERROR_MEMORY, "are needed",
           pgpt_generator_new(model, &options, memory, size, &generator, &error));
    options.sequence_bias = NULL;
    options.sequence_bias_count = 0;
    free(memory);

    generator = generator_for(&options);
    pgpt_session *session = session_for(&options);
    struct heard heard = {0};
    pgpt_callbacks callbacks = {sizeof callbacks, &heard, on_token, on_text, on_step};
    pgpt_sequence sequence;
#define RUN(tokens, count) \
    pgpt_generator_run(generator, session, NULL, tokens, count, &callbacks, &error)
    EXPECT(PGPT_ERROR_ARGUMENT, "generator is NULL",
           pgpt_generator_run(NULL, session, NULL, prompt, 1, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL",
           pgpt_generator_run(generator, NULL, NULL, prompt, 1, NULL, &error));
    EXPECT(PGPT_ERROR_TOKEN, "no tokens", RUN(NULL, 0));
    EXPECT(PGPT_ERROR_ARGUMENT, "tokens is NULL", RUN(NULL, 1));
    uint32_t many[100] = {0};
    EXPECT(PGPT_ERROR_OPTION, "tokens of the prompt is 100", RUN(many, 100));
    callbacks.size = 3;
    EXPECT(PGPT_ERROR_VERSION, "callbacks has a size of 3", RUN(prompt, prompt_count));
    callbacks.size = sizeof callbacks;
    THAT(pgpt_generator_sequences(generator) == 0 && pgpt_generator_sequences(NULL) == 0);
    EXPECT(PGPT_ERROR_ARGUMENT, "no such sequence",
           pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));

    OK(RUN(prompt, prompt_count));
    THAT(heard.tokens == 8 && heard.steps == 7 && heard.length > 0);
    THAT(pgpt_generator_sequences(generator) == 1);
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    THAT(sequence.count == 8 && sequence.stop_reason == PGPT_STOP_MAX_NEW_TOKENS);
    uint32_t first[8];
    memcpy(first, sequence.tokens, sizeof first);
    EXPECT(PGPT_ERROR_ARGUMENT, "sequence is NULL",
           pgpt_generator_get_sequence(generator, 0, NULL, sizeof sequence, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "the session has read as many tokens", RUN(prompt, prompt_count));

    OK(pgpt_session_truncate(session, 0, &error));
    heard = (struct heard){.stop_at = 3};
    OK(RUN(prompt, prompt_count));
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    THAT(sequence.count == 3 && sequence.stop_reason == PGPT_STOP_INTERRUPTED);
    THAT(memcmp(first, sequence.tokens, 3 * sizeof *first) == 0);

    /* The loop written by hand gives the same. */
    pgpt_sampler *sampler;
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL", pgpt_sampler_size(NULL, &options, &size, &error));
    OK(pgpt_sampler_size(model, &options, &size, &error));
    memory = memory_of(size);
    EXPECT(PGPT_ERROR_MEMORY, "are needed",
           pgpt_sampler_new(model, &options, memory, size - 64, &sampler, &error));
    OK(pgpt_sampler_new(model, &options, memory, size, &sampler, &error));
    OK(pgpt_session_truncate(session, 0, &error));
    const float *logits;
    OK(pgpt_session_feed(session, NULL, prompt, prompt_count, &logits, &error));
    uint32_t token;
    EXPECT(PGPT_ERROR_ARGUMENT, "sampler is NULL",
           pgpt_sampler_next(NULL, logits, NULL, 0, 0, &token, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "logits is NULL",
           pgpt_sampler_next(sampler, NULL, NULL, 0, 0, &token, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "token is NULL",
           pgpt_sampler_next(sampler, logits, NULL, 0, 0, NULL, &error));
    OK(pgpt_sampler_next(sampler, logits, NULL, 0, 0, &token, &error));
    THAT(token == first[0]);
    pgpt_model_info info;
    OK(pgpt_model_get_info(model, &info, sizeof info, &error));
    float *damaged = calloc(info.vocab_size, sizeof *damaged);
    damaged[7] = NAN;
    EXPECT(PGPT_ERROR_DECODING, "token 7 is not a finite number",
           pgpt_sampler_next(sampler, damaged, NULL, 0, 0, &token, &error));
    free(damaged);
    options.strategy = PGPT_STRATEGY_BEAM;
    size = 1 << 20;
    free(memory);
    memory = memory_of(size);
    EXPECT(PGPT_ERROR_OPTION, "takes a Generator",
           pgpt_sampler_new(model, &options, memory, size, &sampler, &error));
    free(memory);

    /* A session made for one sequence does not carry four beams. */
    generator = generator_for(&options);
    EXPECT(PGPT_ERROR_OPTION, "branches is 4",
           (pgpt_session_truncate(session, 0, NULL), RUN(prompt, prompt_count)));
    session = session_for(&options);
    OK(RUN(prompt, prompt_count));
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    THAT(sequence.count == 8 && sequence.score < 0);

    /* Everything excluded: the run fails in the middle, and the session can be used again. */
    pgpt_sequence_bias *all = calloc(info.vocab_size, sizeof *all);
    uint32_t *ids = calloc(info.vocab_size, sizeof *ids);
    for (uint32_t id = 0; id < info.vocab_size; id++) {
        ids[id] = id;
        all[id] = (pgpt_sequence_bias){&ids[id], 1, -INFINITY};
    }
    options.sequence_bias = all;
    options.sequence_bias_count = info.vocab_size;
    generator = generator_for(&options);
    OK(pgpt_session_truncate(session, 0, &error));
    EXPECT(PGPT_ERROR_DECODING, "no token may follow", RUN(prompt, prompt_count));
    EXPECT(PGPT_ERROR_ARGUMENT, "truncate it to 0",
           pgpt_session_feed(session, NULL, prompt, 1, NULL, &error));
    OK(pgpt_session_truncate(session, 0, &error));
    OK(pgpt_session_feed(session, NULL, prompt, 1, NULL, &error));

    /* The other strategies, and a seed that is changed. */
    options = defaults;
    options.max_new_tokens = 8;
    options.strategy = PGPT_STRATEGY_CONTRASTIVE;
    generator = generator_for(&options);
    session = session_for(&options);
    OK(RUN(prompt, prompt_count));
    options.strategy = PGPT_STRATEGY_SAMPLE;
    options.num_return_sequences = 3;
    const char *stops[] = {"e", "a"};
    options.stop = stops;
    options.stop_count = 2;
    generator = generator_for(&options);
    session = session_for(&options);
    OK(pgpt_generator_set_seed(generator, 5, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "generator is NULL", pgpt_generator_set_seed(NULL, 5, &error));
    OK(RUN(prompt, prompt_count));
    THAT(pgpt_generator_sequences(generator) == 3);
}

struct bytes {
    unsigned char *bytes;
    size_t length, room;
};
static int keep(void *user, const void *bytes, size_t length) {
    struct bytes *to = user;
    if (length > to->room - to->length) return 1;
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
    return 0;
}

static void saved_sessions(void) {
    size_t size, count;
    pgpt_options options = defaults;
    options.max_new_tokens = 8;
    options.min_new_tokens = 8;
    options.max_prompt = 8;
    options.window = 16;
    options.seed = 5;
    options.strategy = PGPT_STRATEGY_SAMPLE;

    /* One run of eight tokens, and one of four that is saved. */
    pgpt_session *session = session_for(&options);
    pgpt_generator *generator = generator_for(&options);
    pgpt_callbacks callbacks = {.size = sizeof callbacks};
    pgpt_sequence sequence;
    OK(RUN(prompt, prompt_count));
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    uint32_t whole[8], text[16] = {0};
    THAT(sequence.count == 8);
    memcpy(whole, sequence.tokens, sizeof whole);
    OK(pgpt_session_truncate(session, 0, &error));
    struct heard heard = {.stop_at = 4};
    callbacks = (pgpt_callbacks){.size = sizeof callbacks, .user = &heard, .token = on_token};
    OK(RUN(prompt, prompt_count));
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    THAT(sequence.count == 4);
    memcpy(text, prompt, prompt_count * sizeof *text);
    memcpy(text + prompt_count, sequence.tokens, 4 * sizeof *text);
    pgpt_saved_text what = {sizeof what, text, prompt_count + 4, 4, 5, "{\"a\":1}", 7};

#define SAVE(change, status, words)                                              \
    do {                                                                         \
        pgpt_saved_text changed = what;                                          \
        change;                                                                  \
        EXPECT(status, words, pgpt_session_save_size(session, &changed, &size, &error));   \
        EXPECT(status, words, pgpt_session_save(session, &changed, keep, NULL, &error)); \
    } while (0)
    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL",
           pgpt_session_save(NULL, &what, keep, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "text is NULL",
           pgpt_session_save(session, NULL, keep, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "write is NULL",
           pgpt_session_save(session, &what, NULL, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "size is NULL",
           pgpt_session_save_size(session, &what, NULL, &error));
    SAVE(changed.size = 8, PGPT_ERROR_VERSION, "text has a size of 8");
    SAVE(changed.tokens = NULL, PGPT_ERROR_ARGUMENT, "tokens is NULL");
    SAVE(changed.count = 0, PGPT_ERROR_TOKEN, "no tokens");
    SAVE(changed.count = 1, PGPT_ERROR_ARGUMENT, "has read more tokens than the text has");
    SAVE(changed.new_tokens = 99, PGPT_ERROR_ARGUMENT, "more tokens are new");
    SAVE(changed.metadata = "\xff", PGPT_ERROR_UTF8, "metadata is not UTF-8");
    SAVE(changed.metadata = NULL, PGPT_ERROR_ARGUMENT, "metadata is NULL");
    char *long_text = memset(memory_of((1 << 20) + 1), 'a', (1 << 20) + 1);
    SAVE(changed.metadata = long_text; changed.metadata_length = (1 << 20) + 1,
         PGPT_ERROR_ARGUMENT, "longer than 1 MiB");
    free(long_text);
    uint32_t last = text[prompt_count];
    text[prompt_count] = UINT32_MAX;
    SAVE((void)0, PGPT_ERROR_TOKEN, "not in the vocabulary");
    text[prompt_count] = last;

    OK(pgpt_session_save_size(session, &what, &size, &error));
    struct bytes to = {memory_of(size), 0, size - 1};
    EXPECT(PGPT_ERROR_WRITE, "gave up", pgpt_session_save(session, &what, keep, &to, &error));
    to = (struct bytes){to.bytes, 0, size};
    OK(pgpt_session_save(session, &what, keep, &to, &error));
    THAT(to.length == size);

    /* Every damage is told; a byte of the data is found by its checksum. */
    void *memory = memory_of(pgpt_saved_size());
    pgpt_saved *saved = (pgpt_saved *)&saved;
#define SAVED(bytes, length) \
    pgpt_saved_open(model, bytes, length, memory, pgpt_saved_size(), &saved, &error)
    EXPECT(PGPT_ERROR_SAVED, "only 0 bytes", SAVED(to.bytes, 0));
    THAT(saved == NULL);
    EXPECT(PGPT_ERROR_SAVED, "should have", SAVED(to.bytes, size - 1));
    for (size_t at = 0; at < size; at += at < 200 ? 1 : 97) {
        to.bytes[at] ^= 4;
        THAT(SAVED(to.bytes, size) == PGPT_ERROR_SAVED && saved == NULL);
        to.bytes[at] ^= 4;
    }
    EXPECT(PGPT_ERROR_ARGUMENT, "model is NULL",
           pgpt_saved_open(NULL, to.bytes, size, memory, pgpt_saved_size(), &saved, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "bytes is NULL", SAVED(NULL, size));
    EXPECT(PGPT_ERROR_ARGUMENT, "memory is NULL",
           pgpt_saved_open(model, to.bytes, size, NULL, pgpt_saved_size(), &saved, &error));
    EXPECT(PGPT_ERROR_MEMORY, "are needed",
           pgpt_saved_open(model, to.bytes, size, memory, 8, &saved, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "saved is NULL",
           pgpt_saved_open(model, to.bytes, size, memory, pgpt_saved_size(), NULL, &error));

    /* At any address. */
    unsigned char *shifted = (unsigned char *)memory_of(size + 1) + 1;
    memcpy(shifted, to.bytes, size);
    OK(SAVED(shifted, size));
    pgpt_saved_info info;
    EXPECT(PGPT_ERROR_ARGUMENT, "saved is NULL",
           pgpt_saved_get_info(NULL, &info, sizeof info, &error));
    EXPECT(PGPT_ERROR_VERSION, "info has a size of 4", pgpt_saved_get_info(saved, &info, 4, &error));
    OK(pgpt_saved_get_info(saved, &info, sizeof info, &error));
    THAT(info.count == prompt_count + 4 && info.fed == info.count - 1 && info.new_tokens == 4);
    THAT(info.seed == 5 && info.window == 16 && info.kv == options.kv && info.overflow == 0);
    THAT(info.metadata_length == 7 && memcmp(info.metadata, what.metadata, 7) == 0);
    uint32_t again[16];
    EXPECT(PGPT_ERROR_ARGUMENT, "saved is NULL",
           pgpt_saved_tokens(NULL, again, 16, &count, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "tokens is NULL",
           pgpt_saved_tokens(saved, NULL, 16, &count, &error));
    THAT(pgpt_saved_tokens(saved, again, 2, &count, &error) == PGPT_ERROR_MEMORY);
    THAT(error.needed == info.count && count == 2);
    /* One too few, and exactly enough. */
    THAT(pgpt_saved_tokens(saved, again, info.count - 1, &count, &error) == PGPT_ERROR_MEMORY);
    THAT(error.needed == info.count && count == info.count - 1);
    OK(pgpt_saved_tokens(saved, again, info.count, &count, &error));
    OK(pgpt_saved_tokens(saved, again, 16, &count, &error));
    THAT(count == info.count && memcmp(again, text, count * sizeof *text) == 0);

    /* Only a session of the same options takes it up; then the text is the one of a single run. */
    EXPECT(PGPT_ERROR_ARGUMENT, "options is NULL", pgpt_saved_set_options(saved, NULL, &error));
    pgpt_options other = options;
    other.window = 12;
    other.seed = 1;
    session = session_for(&other);
    EXPECT(PGPT_ERROR_ARGUMENT, "saved is NULL", pgpt_session_restore(session, NULL, &error));
    EXPECT(PGPT_ERROR_ARGUMENT, "session is NULL", pgpt_session_restore(NULL, saved, &error));
    EXPECT(PGPT_ERROR_SAVED, "another window", pgpt_session_restore(session, saved, &error));
    THAT(pgpt_session_fed(session) == 0);
    OK(pgpt_saved_set_options(saved, &other, &error));
    THAT(other.window == 16 && other.seed == 5 && other.max_new_tokens == 8);
    session = session_for(&other);
    generator = generator_for(&other);
    OK(pgpt_session_restore(session, saved, &error));
    THAT(pgpt_session_fed(session) == info.fed);
    callbacks = (pgpt_callbacks){.size = sizeof callbacks};
    EXPECT(PGPT_ERROR_ARGUMENT, "more tokens are new",
           pgpt_generator_resume(generator, session, NULL, again, count, count + 1, &callbacks,
                                 &error));
    OK(pgpt_generator_resume(generator, session, NULL, again, count, 4, &callbacks, &error));
    OK(pgpt_generator_get_sequence(generator, 0, &sequence, sizeof sequence, &error));
    THAT(sequence.count == 4 && memcmp(sequence.tokens, whole + 4, 4 * sizeof *whole) == 0);

    free(memory);
    free(to.bytes);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.pgpt\n", argv[0]);
        return 2;
    }
    THAT(strlen(pgpt_version()) > 0);
    THAT(strcmp(pgpt_status_name(PGPT_ERROR_PANIC), "PGPT_ERROR_PANIC") == 0);
    THAT(strcmp(pgpt_status_name(99), "unknown") == 0 && strcmp(pgpt_status_name(-1), "unknown") == 0);
    memset(&error, 0x55, sizeof error);
    files(argv[1]);
    models();
    tokens();
    options();
    sessions();
    generators();
    saved_sessions();
    pgpt_file_unmap(file);
    printf("errors.c: %d checks, %d failed\n", checks, failures);
    return failures > 0;
}
