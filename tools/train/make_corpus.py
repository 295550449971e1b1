#!/usr/bin/env python3
"""Writes the generated corpus: one JSON string a line, one document each.

  make_corpus.py --documents 60000 --seed 1 --out corpus.jsonl
  make_corpus.py --documents 110 --seed 99991 --plain --out heldout.txt

A document is a bare story or a conversation in ChatML; both end in <|im_end|>.
"""
import argparse
import json
import random

from tales import chat


def document(rng, story_share):
    if rng.random() < story_share:
        return chat.new_story(rng).text() + "<|im_end|>"
    return chat.conversation(rng).rstrip("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stories", type=float, default=0.32, help="share of bare stories")
    parser.add_argument("--plain", action="store_true", help="text with <|endoftext|> before each document instead of JSON lines")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with open(args.out, "w", encoding="utf-8") as out:
        for _ in range(args.documents):
            text = document(rng, args.stories)
            out.write(f"<|endoftext|>{text}\n" if args.plain else json.dumps(text) + "\n")


if __name__ == "__main__":
    main()
