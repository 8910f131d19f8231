"""The tokens that `pocketgpt bench` uses, so that all read the same."""

MULTIPLIER, MASK = 6_364_136_223_846_793_005, 2**64 - 1


def random_ids(count: int, vocab_size: int) -> list[int]:
    state, ids = 1, []
    for _ in range(count):
        state = (state * MULTIPLIER + 1) & MASK
        ids.append((state >> 33) % vocab_size)
    return ids
