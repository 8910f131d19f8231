/* pocketgpt for C: runs GPT-2 models on small CPUs, in memory that the caller gives.
 *
 * Made by cbindgen from capi/src: change it there.
 *
 * Every handle is made in two steps: pgpt_..._size tells how much memory it takes, and
 * pgpt_..._new (pgpt_model_open) makes it there, at any address. The memory may be static, on the
 * stack or from calloc; what is in it does not matter, as long as it has been written once. Afterwards
 * nothing is allocated, and there is nothing to free but the memory. Only pgpt_file_map and
 * pgpt_threads_new take memory from the system; they are not in a library without std.
 *
 * A function that can fail returns a pgpt_status and tells in pgpt_error, unless that is NULL, what
 * went wrong. A handle that was not made is NULL, and every function refuses NULL.
 *
 * What the caller promises, for all functions: a pointer is NULL or points to what its type says,
 * arrays to as many elements as the count beside them says; the memory of a handle, and what it was
 * made from (file, model, lists of the options), stay where they are while it is used; a handle that
 * is not const is used by one thread at a time.
 *
 * A struct that may grow has its size in it or beside it, so that programs run with a newer library
 * than they were built with.
 *
 * The same model, tokens and options give the same bits on every machine. */


#ifndef POCKETGPT_H
#define POCKETGPT_H

#include <stddef.h>
#include <stdint.h>

// Bytes of a message, the NUL at its end included.
#define PGPT_MESSAGE_SIZE 256

// What a call gives back: PGPT_OK, or what went wrong.
enum pgpt_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    PGPT_OK = 0,
    // A pointer is NULL that must not be, or a handle does not fit another one.
    PGPT_ERROR_ARGUMENT = 1,
    // A struct's size is none that this library knows: header and library do not fit.
    PGPT_ERROR_VERSION = 2,
    // The memory given is too small; `needed` of the error says how much would do.
    PGPT_ERROR_MEMORY = 3,
    // The bytes are no .pgpt file, or a damaged one.
    PGPT_ERROR_MODEL = 4,
    // The file cannot be opened or mapped.
    PGPT_ERROR_FILE = 5,
    // This CPU has no such instructions.
    PGPT_ERROR_ISA = 6,
    // An option is outside its range, or makes no sense beside the others.
    PGPT_ERROR_OPTION = 7,
    // A text is not UTF-8.
    PGPT_ERROR_UTF8 = 8,
    // The file has no tokenizer.
    PGPT_ERROR_NO_TOKENIZER = 9,
    // A token is not in the vocabulary, or there are none.
    PGPT_ERROR_TOKEN = 10,
    // No position is left for these tokens.
    PGPT_ERROR_CONTEXT_FULL = 11,
    // No token can be chosen: the options exclude all, or the weights are damaged.
    PGPT_ERROR_DECODING = 12,
    // The system gives no thread.
    PGPT_ERROR_THREADS = 13,
    // A mistake in this library. Nothing is leaked, but make the handles of the call anew.
    PGPT_ERROR_PANIC = 14,
    // The bytes are no saved session, a damaged one, or one of another model file or other options.
    PGPT_ERROR_SAVED = 15,
    // The caller's function that takes bytes gave up.
    PGPT_ERROR_WRITE = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_status pgpt_status;
#else
typedef int32_t pgpt_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Instructions that a model can be run with. All give the same results, bit for bit.
enum pgpt_isa
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The fastest that this machine has.
    PGPT_ISA_BEST = 0,
    // Plain instructions, on any CPU.
    PGPT_ISA_SCALAR = 1,
    // x86-64 with AVX2, FMA and F16C.
    PGPT_ISA_AVX2 = 2,
    // x86-64 with AVX-512 F, BW, VL, DQ and VNNI.
    PGPT_ISA_AVX512VNNI = 3,
    // AArch64.
    PGPT_ISA_NEON = 4,
    // AArch64 with dot products.
    PGPT_ISA_DOTPROD = 5,
    // AArch64 with products of int8 matrices.
    PGPT_ISA_I8MM = 6,
    // x86-64 with AVX-512 as above and AMX for bytes, under Linux, of which the registers are asked for: for
    // the whole process, whose alternate signal stacks need room for 8 KB more then. `PGPT_ISA_BEST` looks
    // for it, codes of other sets do not.
    PGPT_ISA_AMX = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_isa pgpt_isa;
#else
typedef uint32_t pgpt_isa;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What is done with special tokens such as `<|endoftext|>` that are written in a text.
enum pgpt_special
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // They become their ids.
    PGPT_SPECIAL_PARSE = 0,
    // They are text as any other: nothing that a stranger writes can end the document.
    PGPT_SPECIAL_PLAIN = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_special pgpt_special;
#else
typedef uint32_t pgpt_special;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How keys and values are stored.
enum pgpt_kv
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    PGPT_KV_F32 = 0,
    PGPT_KV_F16 = 1,
    // int8 with one scale per head.
    PGPT_KV_Q8 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_kv pgpt_kv;
#else
typedef uint32_t pgpt_kv;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What happens when a text has used all positions of the model.
enum pgpt_overflow
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It ends.
    PGPT_OVERFLOW_STOP = 0,
    // It goes on with its first `keep` and its last `tail` tokens, which are read anew: one long
    // pause each time.
    PGPT_OVERFLOW_REFILL = 1,
    // The same, bit for bit, without the pause: from the middle on tokens are also read into a second
    // cache.
    PGPT_OVERFLOW_SHADOW = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_overflow pgpt_overflow;
#else
typedef uint32_t pgpt_overflow;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How tokens are chosen.
enum pgpt_strategy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The most probable token.
    PGPT_STRATEGY_GREEDY = 0,
    // Drawn at random, by probability.
    PGPT_STRATEGY_SAMPLE = 1,
    // Beam search.
    PGPT_STRATEGY_BEAM = 2,
    // Contrastive search.
    PGPT_STRATEGY_CONTRASTIVE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_strategy pgpt_strategy;
#else
typedef uint32_t pgpt_strategy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// When a beam search ends before `max_new_tokens`.
enum pgpt_early_stopping
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // When a text of the best beam's present length could not beat the finished ones.
    PGPT_EARLY_STOPPING_FALSE = 0,
    // As soon as `num_beams` texts have ended.
    PGPT_EARLY_STOPPING_TRUE = 1,
    // When no continuation can beat the finished ones, however long.
    PGPT_EARLY_STOPPING_NEVER = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_early_stopping pgpt_early_stopping;
#else
typedef uint32_t pgpt_early_stopping;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Why a text ends.
enum pgpt_stop_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The model ended it.
    PGPT_STOP_END_OF_TEXT = 1,
    // It has as many tokens as were asked for.
    PGPT_STOP_MAX_NEW_TOKENS = 2,
    // It ends with one of the stop texts.
    PGPT_STOP_TEXT = 3,
    // No position is left.
    PGPT_STOP_CONTEXT_FULL = 4,
    // A callback said so.
    PGPT_STOP_INTERRUPTED = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum pgpt_stop_reason pgpt_stop_reason;
#else
typedef uint32_t pgpt_stop_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A file, mapped into memory.
typedef struct pgpt_file pgpt_file;

// Writes texts.
typedef struct pgpt_generator pgpt_generator;

// A model: a proven file and the instructions to run it with. Does not change, so that several
// threads may use it at the same time.
typedef struct pgpt_model pgpt_model;

// Chooses tokens, greedily or at random.
typedef struct pgpt_sampler pgpt_sampler;

// A saved session: the caller's bytes, proven.
typedef struct pgpt_saved pgpt_saved;

// A text being read: its keys and values, and memory to compute in.
typedef struct pgpt_session pgpt_session;

// Threads that wait for work.
typedef struct pgpt_threads pgpt_threads;

// What went wrong in a call, in the caller's memory.
typedef struct pgpt_error {
    // As the call returned it; after a success PGPT_OK.
    pgpt_status status;
    // With PGPT_ERROR_MEMORY what would do, in the unit of what was given: bytes of a handle's
    // memory, or tokens. Else 0.
    size_t needed;
    // English, without a line break, UTF-8, ended by NUL; cut where it is too long.
    char message[PGPT_MESSAGE_SIZE];
} pgpt_error;

// What a model is.
typedef struct pgpt_model_info {
    // Tokens there are: ids are below it.
    uint32_t vocab_size;
    // Longest text in tokens.
    uint32_t n_ctx;
    // Width of the residual stream.
    uint32_t n_embd;
    // Blocks.
    uint32_t n_layer;
    // Attention heads of a block.
    uint32_t n_head;
    // Width of the MLP.
    uint32_t n_inner;
    // Token that begins a text, -1 if the model names none.
    int64_t bos_token_id;
    // Token that ends a text, -1 if the model names none.
    int64_t eos_token_id;
    // The instructions in use: one of pgpt_isa, not PGPT_ISA_BEST.
    uint32_t isa;
    // 1 if the file has a tokenizer.
    uint32_t has_tokenizer;
} pgpt_model_info;

// What is added to the logit of the last of these tokens where the others stand at the end of the
// text: with one token, to its logit always. -INFINITY excludes it.
typedef struct pgpt_sequence_bias {
    const uint32_t *tokens;
    size_t count;
    float bias;
} pgpt_sequence_bias;

// What is wanted. pgpt_options_init sets everything; change what you like. Names and meanings are
// those of Hugging Face's generation config.
//
// Sizes follow from it, so use the same options for pgpt_..._size and pgpt_..._new.
typedef struct pgpt_options {
    // sizeof(pgpt_options), set by pgpt_options_init.
    size_t size;
    // One of pgpt_kv: at first as exact as the weights are.
    uint32_t kv;
    // Positions that attention sees, at first all that the model has: the first `keep` and the last
    // ones.
    uint32_t window;
    // Tokens at the beginning of the text that stay, at first 0.
    uint32_t keep;
    // One of pgpt_overflow, at first PGPT_OVERFLOW_STOP.
    uint32_t overflow;
    // Tokens that stay behind the kept ones when the context begins anew; 0: half of them.
    uint32_t tail;
    // Most tokens of a prompt that are read together.
    uint32_t batch;
    // Most threads.
    uint32_t threads;
    // Longest prompt for a generator, in tokens.
    uint32_t max_prompt;
    // One of pgpt_strategy, at first PGPT_STRATEGY_GREEDY.
    uint32_t strategy;
    // Most tokens to write, at first 20.
    uint32_t max_new_tokens;
    // The text does not end before it has this many new tokens.
    uint32_t min_new_tokens;
    // Token that ends the text, -1 for none; at first the model's own.
    int64_t eos_token_id;
    // How many texts: drawn independently, or the best of a beam search.
    uint32_t num_return_sequences;
    // Above 1 tokens that are in the text already become less probable; 1 changes nothing.
    float repetition_penalty;
    // No run of this many tokens occurs twice; 0 allows all.
    uint32_t no_repeat_ngram_size;
    // Tokens guessed at once from repetitions in the text; changes nothing but the speed. 0: none.
    uint32_t prompt_lookup_num_tokens;
    // What draws follow from.
    uint64_t seed;
    // Sampling: logits are divided by it. 1 changes nothing.
    float temperature;
    // Sampling: only this many most probable tokens stay; 0 keeps all.
    uint32_t top_k;
    // Sampling: the most probable tokens whose probabilities reach this stay; 1 keeps all.
    float top_p;
    // Sampling: tokens less probable than this times the most probable one go; 0 keeps all.
    float min_p;
    // Sampling: the tokens nearest to the expected information that reach this stay; 1 keeps all.
    float typical_p;
    // Beam search: texts written side by side.
    uint32_t num_beams;
    // Beam search: above 0 longer texts win.
    float length_penalty;
    // Beam search: one of pgpt_early_stopping.
    uint32_t early_stopping;
    // Contrastive search: how much a token must differ from the text.
    float penalty_alpha;
    // Contrastive search: candidates.
    uint32_t contrastive_top_k;
    // Tokens that are to be more or less probable; must stay as long as the generator or sampler.
    const struct pgpt_sequence_bias *sequence_bias;
    size_t sequence_bias_count;
    // Texts behind which to stop, each ended by NUL; must stay as long as the generator.
    const char *const *stop;
    size_t stop_count;
} pgpt_options;

// What a session's memory is used for, in bytes.
typedef struct pgpt_plan {
    // Keys and values.
    size_t kv_bytes;
    // Activations of a batch, and of each thread.
    size_t scratch_bytes;
    // Logits.
    size_t logits_bytes;
    // Tables of texts that are written side by side.
    size_t branch_bytes;
} pgpt_plan;

// What is saved beside the keys and values of a session.
typedef struct pgpt_saved_text {
    // sizeof(pgpt_saved_text)
    size_t size;
    // The whole text, at least one token. The session has read its first ones (pgpt_session_fed), as a
    // rule all but the last.
    const uint32_t *tokens;
    size_t count;
    // How many of the tokens, the last ones, were written by the model.
    size_t new_tokens;
    // What draws follow from.
    uint64_t seed;
    // Anything else, UTF-8 of at most 1 MiB; `pocketgpt generate --load-session` takes "{}".
    const char *metadata;
    size_t metadata_length;
} pgpt_saved_text;

// Takes `length` bytes behind those of the call before; anything but 0 gives up.
typedef int (*pgpt_write)(void *user, const void *bytes, size_t length);

// What a saved session is.
typedef struct pgpt_saved_info {
    // One of pgpt_kv.
    uint32_t kv;
    // One of pgpt_overflow.
    uint32_t overflow;
    // As of pgpt_options; `tail` is 0 where the text ends with the context.
    uint32_t window;
    uint32_t keep;
    uint32_t tail;
    // Position of the next token in the context.
    uint32_t position;
    // Tokens of the text that the session has read.
    size_t fed;
    // Tokens of the text.
    size_t count;
    // How many of them, the last ones, were written by the model.
    size_t new_tokens;
    // What draws follow from.
    uint64_t seed;
    // What was saved with it, not ended by NUL; stays as long as the saved bytes.
    const char *metadata;
    size_t metadata_length;
} pgpt_saved_info;

// Functions that a run calls, each NULL where it is not wanted. They must not use the session or
// the generator, and must return: no longjmp, no C++ exception.
typedef struct pgpt_callbacks {
    // sizeof(pgpt_callbacks)
    size_t size;
    // Handed to every function.
    void *user;
    // A new token of a sequence, numbered from 0. Anything but 0 ends the sequence with it. A beam
    // search is certain of nothing before its end: see pgpt_generator_get_sequence.
    int (*token)(void *user, uint32_t sequence, uint32_t token);
    // New text of a sequence: `length` bytes of whole UTF-8 characters, not ended by NUL. Anything
    // but 0 ends the sequence. Called behind `token`.
    int (*text)(void *user, uint32_t sequence, const char *text, size_t length);
    // Comes before each pass through the model but the first. Anything but 0 ends the run.
    int (*step)(void *user);
} pgpt_callbacks;

// A text that was written.
typedef struct pgpt_sequence {
    // What follows the prompt, without the token that ends it; stays until the next run.
    const uint32_t *tokens;
    // Number of these tokens.
    size_t count;
    // With beam search the log-probability of the new tokens divided by their number to the power
    // of `length_penalty`, else 0.
    float score;
    // One of pgpt_stop_reason.
    uint32_t stop_reason;
} pgpt_sequence;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0".
const char *pgpt_version(void);

// A short name of a status, such as "PGPT_ERROR_MEMORY"; of an unknown one "unknown".
const char *pgpt_status_name(int32_t status);

// Maps a file, for pgpt_model_open. `path` is UTF-8. It must not be changed in place while it is
// mapped. Not in a library without std.
pgpt_status pgpt_file_map(const char *path, struct pgpt_file **file, struct pgpt_error *error);

// The file's bytes; NULL if the file is.
const void *pgpt_file_bytes(const struct pgpt_file *file);

// Number of the file's bytes; 0 if the file is NULL.
size_t pgpt_file_length(const struct pgpt_file *file);

// Unmaps a file: models in it must not be used any more. NULL does nothing.
void pgpt_file_unmap(struct pgpt_file *file);

// Bytes of memory that a model handle takes. The file's bytes come on top, and stay where they
// are.
size_t pgpt_model_size(void);

// Opens a model: `bytes` is a whole .pgpt file, at an address that is a multiple of 64. Header
// and directory are proven, no weight is read. `isa` is one of pgpt_isa. The bytes and the memory
// must stay while the model is used; there is nothing to close.
pgpt_status pgpt_model_open(const void *bytes,
                            size_t length,
                            uint32_t isa,
                            void *memory,
                            size_t memory_size,
                            struct pgpt_model **model,
                            struct pgpt_error *error);

// Reads the whole file and checks everything that opening leaves out: all checksums, and that the
// weights are finite numbers.
pgpt_status pgpt_model_verify(const struct pgpt_model *model, struct pgpt_error *error);

// Tells what the model is. `info_size` is sizeof(pgpt_model_info).
pgpt_status pgpt_model_get_info(const struct pgpt_model *model,
                                struct pgpt_model_info *info,
                                size_t info_size,
                                struct pgpt_error *error);

// Bytes of memory that pgpt_tokenize takes for this text: a few kilobytes for prose.
pgpt_status pgpt_tokenize_size(const struct pgpt_model *model,
                               const char *text,
                               size_t length,
                               size_t *size,
                               struct pgpt_error *error);

// Turns a text of `length` bytes into tokens and tells their number in `count`. The memory is
// used during the call only. `special` is one of pgpt_special. If there is no room for all
// (`capacity`, in tokens), the error tells in `needed` how many there are.
pgpt_status pgpt_tokenize(const struct pgpt_model *model,
                          const char *text,
                          size_t length,
                          uint32_t special,
                          void *memory,
                          size_t memory_size,
                          uint32_t *tokens,
                          size_t capacity,
                          size_t *count,
                          struct pgpt_error *error);

// The text of a token: `length` bytes that stay as long as the file does. It may be a part of a
// UTF-8 character; the bytes of all tokens behind each other are the text.
pgpt_status pgpt_token_text(const struct pgpt_model *model,
                            uint32_t token,
                            const char **text,
                            size_t *length,
                            struct pgpt_error *error);

// Sets all options to their defaults for this model. `options_size` is sizeof(pgpt_options).
pgpt_status pgpt_options_init(const struct pgpt_model *model,
                              struct pgpt_options *options,
                              size_t options_size,
                              struct pgpt_error *error);

// Starts threads, `count` with the calling one: 1 to 32. Not in a library without std.
pgpt_status pgpt_threads_new(uint32_t count,
                             struct pgpt_threads **threads,
                             struct pgpt_error *error);

// Ends the threads. NULL does nothing.
void pgpt_threads_free(struct pgpt_threads *threads);

// Tells what a session's memory will be used for. `plan_size` is sizeof(pgpt_plan).
pgpt_status pgpt_session_plan(const struct pgpt_model *model,
                              const struct pgpt_options *options,
                              struct pgpt_plan *plan,
                              size_t plan_size,
                              struct pgpt_error *error);

// Bytes of memory that a session with these options takes.
pgpt_status pgpt_session_size(const struct pgpt_model *model,
                              const struct pgpt_options *options,
                              size_t *size,
                              struct pgpt_error *error);

// Makes a session in the caller's memory, at any address. Afterwards nothing is allocated.
pgpt_status pgpt_session_new(const struct pgpt_model *model,
                             const struct pgpt_options *options,
                             void *memory,
                             size_t memory_size,
                             struct pgpt_session **session,
                             struct pgpt_error *error);

// Reads tokens. `logits`, unless it is NULL, is set to `vocab_size` numbers that tell what may
// follow the last one; they stay until the session is used again. Reading tokens together or one
// by one gives the same bits. `threads` is NULL for one thread.
pgpt_status pgpt_session_feed(struct pgpt_session *session,
                              const struct pgpt_threads *threads,
                              const uint32_t *tokens,
                              size_t count,
                              const float **logits,
                              struct pgpt_error *error);

// Tokens that have been read; 0 if the session is NULL.
size_t pgpt_session_fed(const struct pgpt_session *session);

// Tokens that can still be read, SIZE_MAX where the context begins anew; 0 if the session is NULL.
size_t pgpt_session_remaining(const struct pgpt_session *session);

// Forgets all but the first `fed` tokens. 0 is always possible and makes the session new.
pgpt_status pgpt_session_truncate(struct pgpt_session *session,
                                  size_t fed,
                                  struct pgpt_error *error);

// How many bytes pgpt_session_save will write.
pgpt_status pgpt_session_save_size(struct pgpt_session *session,
                                   const struct pgpt_saved_text *text,
                                   size_t *size,
                                   struct pgpt_error *error);

// Saves a session with its text, to go on from later or on another machine, with the same model
// file: `write` is called with one piece after the other, and with `user`. It must not use the session,
// and must return. Nothing is allocated, and the session stays as it is.
pgpt_status pgpt_session_save(struct pgpt_session *session,
                              const struct pgpt_saved_text *text,
                              pgpt_write write,
                              void *user,
                              struct pgpt_error *error);

// Bytes of memory that the handle of a saved session takes. The saved bytes come on top, and stay
// where they are.
size_t pgpt_saved_size(void);

// Opens what pgpt_session_save wrote, at any address. All of it is proven but the keys and values,
// which pgpt_session_restore looks at: bytes from anywhere may be given. The bytes and the memory must
// stay while the handle is used; there is nothing to close.
pgpt_status pgpt_saved_open(const struct pgpt_model *model,
                            const void *bytes,
                            size_t length,
                            void *memory,
                            size_t memory_size,
                            struct pgpt_saved **saved,
                            struct pgpt_error *error);

// Tells what was saved. `info_size` is sizeof(pgpt_saved_info).
pgpt_status pgpt_saved_get_info(const struct pgpt_saved *saved,
                                struct pgpt_saved_info *info,
                                size_t info_size,
                                struct pgpt_error *error);

// Copies the saved text and tells its number of tokens in `count`. If there is no room for all
// (`capacity`, in tokens), the error tells in `needed` how many there are.
pgpt_status pgpt_saved_tokens(const struct pgpt_saved *saved,
                              uint32_t *tokens,
                              size_t capacity,
                              size_t *count,
                              struct pgpt_error *error);

// Sets those options on which the keys and values depend (`kv`, `window`, `keep`, `overflow`,
// `tail`), and the seed, as they were saved. A session that takes up what was saved is made with
// these; a text whose overflow was PGPT_OVERFLOW_STOP may also go on with PGPT_OVERFLOW_REFILL.
pgpt_status pgpt_saved_set_options(const struct pgpt_saved *saved,
                                   struct pgpt_options *options,
                                   struct pgpt_error *error);

// Takes up what was saved, whatever the session has read before. If a number of the keys and values
// is none that a token leaves, or the session was made with other options, the session is as new.
pgpt_status pgpt_session_restore(struct pgpt_session *session,
                                 const struct pgpt_saved *saved,
                                 struct pgpt_error *error);

// Bytes of memory that a generator with these options takes.
pgpt_status pgpt_generator_size(const struct pgpt_model *model,
                                const struct pgpt_options *options,
                                size_t *size,
                                struct pgpt_error *error);

// Makes a generator in the caller's memory, at any address.
pgpt_status pgpt_generator_new(const struct pgpt_model *model,
                               const struct pgpt_options *options,
                               void *memory,
                               size_t memory_size,
                               struct pgpt_generator **generator,
                               struct pgpt_error *error);

// What the next run's draws follow from.
pgpt_status pgpt_generator_set_seed(struct pgpt_generator *generator,
                                    uint64_t seed,
                                    struct pgpt_error *error);

// Continues a text, of which the session has read the first tokens (pgpt_session_fed), or
// none. The session must be of the same model and options. `threads` and `callbacks` may be NULL.
//
// Afterwards the session has read what there is of the text, so that it can be gone on with; with
// several sequences and beams, the prompt.
pgpt_status pgpt_generator_run(struct pgpt_generator *generator,
                               struct pgpt_session *session,
                               const struct pgpt_threads *threads,
                               const uint32_t *tokens,
                               size_t count,
                               const struct pgpt_callbacks *callbacks,
                               struct pgpt_error *error);

// Goes on with a text of which an earlier run with the same options and seed has written the last
// `new_tokens`, as if it had not ended: `max_new_tokens` counts those as well, and draws follow those
// that were made. Else as pgpt_generator_run; with new tokens, one sequence written token by token.
// The earlier run must not have ended with the model's own end of the text. See pgpt_session_save.
pgpt_status pgpt_generator_resume(struct pgpt_generator *generator,
                                  struct pgpt_session *session,
                                  const struct pgpt_threads *threads,
                                  const uint32_t *tokens,
                                  size_t count,
                                  size_t new_tokens,
                                  const struct pgpt_callbacks *callbacks,
                                  struct pgpt_error *error);

// How many sequences the last run gave; 0 if the generator is NULL.
size_t pgpt_generator_sequences(const struct pgpt_generator *generator);

// One of the sequences that the last run gave, the best first with beam search. `sequence_size` is
// sizeof(pgpt_sequence).
pgpt_status pgpt_generator_get_sequence(const struct pgpt_generator *generator,
                                        size_t index,
                                        struct pgpt_sequence *sequence,
                                        size_t sequence_size,
                                        struct pgpt_error *error);

// Bytes of memory that a sampler with these options takes.
pgpt_status pgpt_sampler_size(const struct pgpt_model *model,
                              const struct pgpt_options *options,
                              size_t *size,
                              struct pgpt_error *error);

// Makes a sampler in the caller's memory, at any address. The strategy must be greedy or sample.
pgpt_status pgpt_sampler_new(const struct pgpt_model *model,
                             const struct pgpt_options *options,
                             void *memory,
                             size_t memory_size,
                             struct pgpt_sampler **sampler,
                             struct pgpt_error *error);

// Chooses the token that follows a text, given its `vocab_size` logits. `text` is the whole text
// of `count` tokens, of which the last `new_count` were chosen; without repetition_penalty,
// no_repeat_ngram_size, min_new_tokens and sequence_bias it may be NULL and 0.
pgpt_status pgpt_sampler_next(struct pgpt_sampler *sampler,
                              const float *logits,
                              const uint32_t *text,
                              size_t count,
                              size_t new_count,
                              uint32_t *token,
                              struct pgpt_error *error);

// Written by the program that links a library without std: called for a mistake in the library,
// with what happened in words. It must not return: reset, or stop.
extern void pgpt_panic(const char *message);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POCKETGPT_H */
