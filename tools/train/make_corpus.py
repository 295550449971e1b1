#!/usr/bin/env python3
"""Writes the generated corpus: one JSON string a line, one document each.

  make_corpus.py --documents 60000 --seed 1 --out corpus.jsonl
  make_corpus.py --documents 110 --seed 99991 --plain --out heldout.txt

A document is a bare story or a conversation in ChatML; both end in <|im_end|>.
"""
import argparse
import json
import random

from tales import chat, memory


def document(rng, story_share, memory_share, drill_share):
    if memory_share and rng.random() < 0.15 * memory_share:
        return memory.word_list(rng) + "<|im_end|>"
    if rng.random() < story_share:
        return chat.new_story(rng).text() + "<|im_end|>"
    return chat.conversation(rng, memory_share, drill_share).rstrip("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stories", type=float, default=0.32, help="share of bare stories")
    parser.add_argument("--memory", type=float, default=0.0, help="share of conversations that exercise looking back")
    parser.add_argument("--drill", type=float, default=0.0, help="share of the other conversations that drill one kind of question")
    parser.add_argument("--plain", action="store_true", help="text with <|endoftext|> before each document instead of JSON lines")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with open(args.out, "w", encoding="utf-8") as out:
        for _ in range(args.documents):
            text = document(rng, args.stories, args.memory, args.drill)
            out.write(f"<|endoftext|>{text}\n" if args.plain else json.dumps(text) + "\n")


if __name__ == "__main__":
    main()
