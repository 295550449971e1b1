#!/usr/bin/env python3
"""Reads the GGUF file back with numpy alone: an independent forward pass.

  check_gguf.py MODEL.gguf --samples            text from the file: stories and conversations
  check_gguf.py MODEL.gguf --loss heldout.txt   loss a token and bits a byte on held-out documents
  check_gguf.py MODEL.gguf --score              share of simple questions answered right
  check_gguf.py MODEL.gguf --compare DIR        logits against the checkpoint it was made of
"""
import argparse
import itertools
import os
import re

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


class Model:
    """Weights and vocabulary of a GGUF file; logits(ids) or, with a cache, step(id)."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.field = lambda key: reader.fields[key].contents()
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.n_layer, self.n_head, self.n_kv = (self.field(f"llama.{k}") for k in ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.size = self.field("llama.rope.dimension_count")
        self.eps, self.base = self.field("llama.attention.layer_norm_rms_epsilon"), self.field("llama.rope.freq_base")
        tokens, types = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.token_type")
        merges = [tuple(m.split(" ")) for m in self.field("tokenizer.ggml.merges")]
        self.tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        self.tokenizer.decoder = decoders.ByteLevel()
        self.tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL])
        self.bos, self.eos = self.field("tokenizer.ggml.bos_token_id"), self.field("tokenizer.ggml.eos_token_id")

    def encode(self, text):
        return [self.bos] + self.tokenizer.encode(text).ids

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, first):
        """Turns neighbouring pairs of x [tokens, heads, size] by their position."""
        angle = (first + np.arange(x.shape[0]))[:, None, None] * self.base ** (-np.arange(0, self.size, 2) / self.size)
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack((a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)), -1).reshape(x.shape).astype(np.float32)

    def forward(self, ids, cache=None):
        """ids [tokens] -> logits [tokens, n_vocab]; `cache` is a list that is filled and continued."""
        w, n = self.w, len(ids)
        cache = cache if cache is not None else []
        if not cache:
            cache += [[np.zeros((0, self.n_kv, self.size), np.float32)] * 2 for _ in range(self.n_layer)]
        past = cache[0][0].shape[0]
        x = w["token_embd.weight"][ids]
        for i in range(self.n_layer):
            t = lambda name: w[f"blk.{i}.{name}.weight"]
            y = self.norm(x, f"blk.{i}.attn_norm.weight")
            q = self.rope((y @ t("attn_q").T).reshape(n, self.n_head, self.size), past)
            k = self.rope((y @ t("attn_k").T).reshape(n, self.n_kv, self.size), past)
            v = (y @ t("attn_v").T).reshape(n, self.n_kv, self.size)
            k, v = np.concatenate((cache[i][0], k)), np.concatenate((cache[i][1], v))
            cache[i] = [k, v]
            group = self.n_head // self.n_kv
            out = np.empty((n, self.n_head, self.size), np.float32)
            hidden = np.arange(past + n)[None, :] > past + np.arange(n)[:, None]
            for head in range(self.n_head):
                scores = q[:, head] @ k[:, head // group].T / np.sqrt(self.size)
                scores[hidden] = -np.inf
                p = np.exp(scores - scores.max(-1, keepdims=True))
                out[:, head] = p / p.sum(-1, keepdims=True) @ v[:, head // group]
            x = x + out.reshape(n, -1) @ t("attn_output").T
            y = self.norm(x, f"blk.{i}.ffn_norm.weight")
            gate = y @ t("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ t("ffn_up").T)) @ t("ffn_down").T
        return self.norm(x, "output_norm.weight") @ w.get("output.weight", w["token_embd.weight"]).T

    def generate(self, ids, limit, temperature, rng):
        cache, out = [], []
        logits = self.forward(ids, cache)[-1]
        while len(out) < limit:
            if temperature:
                p = np.exp((logits - logits.max()) / temperature)
                token = int(rng.choice(len(p), p=p / p.sum()))
            else:
                token = int(logits.argmax())
            if token in (self.eos, self.bos):
                break
            out.append(token)
            logits = self.forward([token], cache)[-1]
        return self.tokenizer.decode(out)


STORIES = ["", "Once upon a time", "One cold morning, the old bear", "Lily and her friend Max wanted to"]
CHATS = [["Hello!", "What is your name?", "What is nibble?", "Thank you!"], ["Tell me a story about a fox.", "Who is the story about?"],
         ["Write a short story about a girl who lost a red ball.", "Where was the ball?"], ["Tell me a story about a brave knight named Oscar."],
         ["What colour is the sky?", "What is the opposite of big?", "What day comes after Friday?", "What does a cow say?", "What do rabbits eat?"],
         ["What is 3 plus 4?", "How much is twelve minus five?", "Count to ten.", "I have two apples and get five more. How many do I have?"],
         ["My name is Sam.", "What is a key for?", "What is my name?"],
         ["What is the capital of France?", "Name three fruits.", "What is bigger, a mouse or a horse?"],
         ["Ben had a green kite. One day, the wind took it away. Ben looked in the park and found it under a bench. His sister Nora helped him.\n\n"
          "Where was the kite?", "Who helped Ben?"], ["Tell me a story about a dragon and a mouse."]]


def chat_samples(model, temperature, rng):
    for questions in CHATS:
        text = ""
        for question in questions:
            text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            answer = model.generate(model.encode(text), 400, temperature, rng)
            text += f"{answer}<|im_end|>\n"
            print(f"> {question}\n{answer}\n")
        print("---")


def held_out(model, path):
    """Mean loss a token in nats, and bits a byte of text; each document by itself."""
    with open(path, encoding="utf-8") as file:
        documents = [d for d in re.split(r"<\|endoftext\|>", file.read()) if d.strip()]
    total, tokens, size = 0.0, 0, 0
    for document in documents:
        document = document.rstrip("\n")
        ids = model.encode(document)
        logits = model.forward(ids[:-1]).astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        total += (np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(ids) - 1), ids[1:]]).sum()
        tokens, size = tokens + len(ids) - 1, size + len(document.encode())
    print(f"{path}: {len(documents)} documents, {size} bytes, {tokens} tokens: loss {total / tokens:.4f} a token, "
          f"perplexity {np.exp(total / tokens):.3f}, {total / np.log(2) / size:.4f} bits a byte")


def right_answers(facts, kind, question, answer, rng):
    """Everything that counts as an answer to a generated question, in small letters."""
    from tales.text import choose, tidy
    if kind is facts.unknown:
        return {a.lower() for a in facts.NOT_KNOWN.split("||")}
    if kind in (facts.plain, facts.myself):
        return {a.lower() for q, answers in facts.PLAIN if question in q.split("||") for a in answers.split("||")}
    if kind is facts.group:
        names = max((g for g in facts.GROUPS if g in question), key=len)
        number = next(n for n, word in enumerate(facts.NUMBERS) if f" {word} " in question)
        orders = itertools.permutations(facts.GROUPS[names], number)
        return {f"{', '.join(o[:-1])} and {o[-1]}.".lower() for o in orders}
    return {tidy(choose(rng, answer)).lower() for _ in range(60)}


def score(model, per_kind=100):
    """Share of questions of each kind that get a right answer; asked as in training, but drawn with
    another seed; and questions about small facts, or a story, given in the prompt."""
    import random

    from tales import chat, facts, memory
    from tales.text import choose
    rng = random.Random(424242)

    def from_facts(kind):
        question, answer = map(facts.article, kind(rng))
        question = choose(rng, question)
        return question, right_answers(facts, kind, question, answer, rng)

    def looked_up(turns):
        (question, answer), *_ = turns
        return question, {answer.lower()}

    kinds = {kind.__name__: (lambda kind=kind: from_facts(kind)) for kind, _ in facts.KINDS}
    kinds["facts in the prompt"] = lambda: looked_up(memory.fact_turns(rng))
    kinds["story in the prompt"] = lambda: looked_up(chat.reading_turns(rng))
    for name, make in kinds.items():
        right = 0
        for _ in range(per_kind):
            question, wanted = make()
            prompt = model.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
            right += model.generate(prompt, 80, 0, None).lower() in wanted
        print(f"{name}: {100 * right / per_kind:.0f} % of {per_kind}")


def compare(model, work):
    import torch

    from model import Config, Llama
    saved = torch.load(os.path.join(work, "checkpoint.pt"))
    net = Llama(Config(**saved["config"]))
    net.load_state_dict(saved["model"])
    ids = model.encode("Once upon a time, there was a little fox named Rusty. One sunny morning, Rusty lost his red ball.")
    with torch.no_grad():
        want = net(torch.tensor([ids]))[0].float().numpy()
    got = model.forward(ids)
    same = (want.argmax(-1) == got.argmax(-1)).mean()
    print(f"logits: largest {np.abs(want).max():.2f}, difference at most {np.abs(want - got).max():.4f}, mean {np.abs(want - got).mean():.5f}, "
          f"relative {np.linalg.norm(want - got) / np.linalg.norm(want):.5f}, same best token {100 * same:.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loss")
    parser.add_argument("--compare")
    parser.add_argument("--score", action="store_true")
    args = parser.parse_args()
    model, rng = Model(args.model), np.random.default_rng(args.seed)
    if args.compare:
        compare(model, args.compare)
    if args.loss:
        held_out(model, args.loss)
    if args.score:
        score(model)
    if args.samples:
        for start in STORIES:
            print(start + model.generate(model.encode(start), 400, args.temperature or 0.7, rng) + "\n---")
        chat_samples(model, args.temperature, rng)


if __name__ == "__main__":
    main()
