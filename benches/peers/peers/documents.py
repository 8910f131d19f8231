"""Texts of several documents, as tokens."""

from pathlib import Path

END = "<|endoftext|>"


def ids_of(checkpoint: Path, text: str) -> list[int]:
    """Each document behind the token that ends texts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    documents = [part.strip("\n") for part in text.split(END)]
    ids: list[int] = []
    for encoded in tokenizer.encode_batch([part for part in documents if part.strip()]):
        ids += [*([] if end is None else [end]), *encoded.ids]
    return ids
