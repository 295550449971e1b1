#!/usr/bin/env python3
"""Trains the byte-level BPE vocabulary on the corpus and writes the token ids.

  prepare.py --corpus corpus.jsonl --work DIR [--vocab 2048]

Makes DIR/tokenizer.json, DIR/tokens.npy (uint16, all documents in a row, each led by
<|endoftext|>) and DIR/lengths.npy (tokens of each document). The text is split before the
merges as GPT-2 splits it, which is what `tokenizer.ggml.pre = gpt-2` says in the model file.
"""
import argparse
import json
import os

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_vocabulary(texts, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--vocab", type=int, default=2048)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    with open(args.corpus, encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    path = os.path.join(args.work, "tokenizer.json")
    if os.path.exists(path):
        tokenizer = Tokenizer.from_file(path)
    else:
        # The special tokens are no text to learn merges from.
        plain = (part for text in texts[:30000] for part in text.replace("<|im_start|>", "<|im_end|>").split("<|im_end|>"))
        tokenizer = train_vocabulary(plain, args.vocab)
        tokenizer.save(path)
    ids, lengths = [], []
    for start in range(0, len(texts), 4096):
        for encoding in tokenizer.encode_batch(["<|endoftext|>" + text for text in texts[start:start + 4096]]):
            ids.append(np.array(encoding.ids, dtype=np.uint16))
            lengths.append(len(encoding.ids))
    np.save(os.path.join(args.work, "tokens.npy"), np.concatenate(ids))
    np.save(os.path.join(args.work, "lengths.npy"), np.array(lengths))
    characters = sum(len(text) for text in texts)
    print(f"{len(texts)} documents, {characters} characters, {sum(lengths)} tokens, {characters / sum(lengths):.2f} characters a token")


if __name__ == "__main__":
    main()
