#!/usr/bin/env python3
"""Trains the model within a given time on the CPU. Run it again to go on where it stopped.

  train.py --work DIR --minutes 70 --compile

Reads DIR/tokens.npy and DIR/lengths.npy (prepare.py), writes DIR/checkpoint.pt and DIR/log.txt.
The schedule runs by the time spent, not by steps: warm-up, flat, and down to zero over the last
30 % of the minutes, so that the model is finished when the time is. Matrices are trained by Muon
(orthogonalised momentum, Jordan et al. 2024), the embedding and the norms by AdamW.
"""
import argparse
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed

from model import Config, Llama


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration towards the nearest orthogonal matrix of g."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (g.T if g.shape[0] > g.shape[1] else g).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return (x.T if g.shape[0] > g.shape[1] else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


class Packer:
    """Rows of n_context + 1 tokens made of whole documents where they fit."""

    def __init__(self, work, context, seed):
        self.tokens = np.load(os.path.join(work, "tokens.npy"))
        self.lengths = np.load(os.path.join(work, "lengths.npy"))
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)))[:-1]
        self.context, self.rng, self.order = context, np.random.default_rng(seed), []
        self.epochs = 0.0

    def _document(self):
        if not len(self.order):
            self.order = list(self.rng.permutation(len(self.lengths)))
        self.epochs += 1 / len(self.lengths)
        i = self.order.pop()
        return self.tokens[self.starts[i]:self.starts[i] + self.lengths[i]]

    def row(self):
        """ids and the number of the document each belongs to, [n_context + 1] each.

        In one document of ten, the leading <|endoftext|> is a document of its own, so that the
        model also works on text without it.
        """
        ids, owners, n = [], [], 0
        while n <= self.context:
            document = self._document()
            owner = np.full(len(document), 2 * len(ids))
            owner[1:] += self.rng.random() < 0.1
            ids.append(document), owners.append(owner)
            n += len(document)
        return np.concatenate(ids)[:self.context + 1], np.concatenate(owners)[:self.context + 1]

    def batch(self, rows):
        ids, owners = map(np.stack, zip(*(self.row() for _ in range(rows))))
        ids, owners = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(owners[:, :-1])
        mask = (owners[:, None, :, None] == owners[:, None, None, :]) & torch.ones(self.context, self.context, dtype=torch.bool).tril()
        return ids[:, :-1], ids[:, 1:], mask


def loss_of(model, ids, targets, mask):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(ids, mask)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def schedule(share):
    return min(1.0, share / 0.01 + 0.01) * min(1.0, max(0.0, (1 - share) / 0.3))


class Trainer:
    """One of the processes that train together; each has its own rows, all have the same weights."""

    def __init__(self, args, rank):
        self.args, self.rank = args, rank
        self.model = Llama(Config())
        named = list(self.model.named_parameters())
        matrices = [p for n, p in named if p.dim() == 2 and "token_embd" not in n]
        others = [p for n, p in named if p.dim() == 1 or "token_embd" in n]
        self.optimizers = [(Muon(matrices, args.lr), args.lr),
                           (torch.optim.AdamW(others, args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0), args.adam_lr)]
        self.path = os.path.join(args.work, "checkpoint.pt")
        self.spent, self.step, self.tokens = 0.0, 0, 0
        if os.path.exists(self.path):
            self.load()
        self.packer = Packer(args.work, self.model.c.n_context, args.seed + 1000 * rank + self.step)
        self.loss_of = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
        self.log = open(os.path.join(args.work, "log.txt"), "a", buffering=1) if rank == 0 else open(os.devnull, "w")
        self.log.write(f"{sum(p.numel() for _, p in named)} parameters, {self.spent:.0f} s spent, step {self.step}\n")

    def load(self):
        saved = torch.load(self.path)
        self.model.load_state_dict(saved["model"])
        for (optimizer, _), state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        self.spent, self.step, self.tokens = saved["spent"], saved["step"], saved["tokens"]

    def save(self):
        if self.rank == 0:
            torch.save(dict(model=self.model.state_dict(), optimizers=[o.state_dict() for o, _ in self.optimizers], spent=self.spent,
                            step=self.step, tokens=self.tokens, config=self.model.c.__dict__), self.path + ".new")
            os.replace(self.path + ".new", self.path)

    def share(self, loss, seconds):
        """Averages the gradients over the processes; returns the mean loss and the time of the first."""
        grads = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([loss, seconds if self.rank == 0 else 0.0])])
        if self.args.processes > 1:
            distributed.all_reduce(flat)
        loss, seconds = (flat[-2] / self.args.processes).item(), flat[-1].item()
        flat /= self.args.processes
        for g, part in zip(grads, flat.split([g.numel() for g in grads] + [2])):
            g.copy_(part.view_as(g))
        return loss, seconds

    def run(self):
        args, goal = self.args, self.args.minutes * 60
        mean, first, saved_at, last = None, self.step + 1, self.spent, time.monotonic()
        while self.spent < min(goal, args.until * 60):
            for optimizer, rate in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * schedule(self.spent / goal)
            self.model.zero_grad(set_to_none=True)
            loss = self.loss_of(self.model, *self.packer.batch(args.rows))
            loss.backward()
            now = time.monotonic()
            loss, seconds = self.share(loss.item(), now - last)
            last = now
            for optimizer, _ in self.optimizers:
                optimizer.step()
            mean = loss if mean is None else 0.95 * mean + 0.05 * loss
            self.step, self.tokens = self.step + 1, self.tokens + args.processes * args.rows * self.model.c.n_context
            self.spent += seconds if self.step > first else 0.0  # a first step compiles
            if self.step % 20 == 0:
                self.log.write(f"step {self.step} tokens {self.tokens} seconds {self.spent:.0f} loss {mean:.4f}\n")
            if self.spent - saved_at > 90:
                self.save()
                saved_at = self.spent
        self.save()
        self.log.write(f"done: step {self.step} tokens {self.tokens} seconds {self.spent:.0f} loss {mean:.4f}\n")


def train(rank, args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.processes > 1:
        distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{args.port}", rank=rank, world_size=args.processes)
    Trainer(args, rank).run()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--minutes", type=float, required=True, help="training time over all runs")
    parser.add_argument("--until", type=float, default=float("inf"), help="stop after this many minutes; the schedule stays")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--rows", type=int, default=8, help="rows of 512 tokens a step and process")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=29511)
    parser.add_argument("--compile", action="store_true", help="compile the step (needs a C++ compiler)")
    args = parser.parse_args()
    if args.processes > 1:
        torch.multiprocessing.spawn(train, (args,), args.processes)
    else:
        train(0, args)


if __name__ == "__main__":
    main()
