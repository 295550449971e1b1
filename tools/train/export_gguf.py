#!/usr/bin/env python3
"""Writes the trained model as a GGUF file: matrices as Q8_0 (or F32), norms as F32.

  export_gguf.py --work DIR --out nibble-tales-q8_0.gguf [--type q8_0|f32]

The rotary pairs are (x[2i], x[2i+1]) in training already, as GGUF's llama has them, so that no
rows need to be reordered.
"""
import argparse
import json
import os

import gguf
import torch

TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def add_vocabulary(writer, path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    vocabulary = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    special = {token["content"]: token["id"] for token in data["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(special["<|endoftext|>"])
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)
    return len(vocabulary)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--type", choices=("q8_0", "f32"), default="q8_0")
    args = parser.parse_args()
    saved = torch.load(os.path.join(args.work, "checkpoint.pt"))
    c = saved["config"]
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_type("model")
    writer.add_name("nibble tales")
    writer.add_description("Little stories and simple questions, trained on generated text for nibble")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_block_count(c["n_layer"])
    writer.add_context_length(c["n_context"])
    writer.add_embedding_length(c["n_embd"])
    writer.add_feed_forward_length(c["n_ff"])
    writer.add_head_count(c["n_head"])
    writer.add_head_count_kv(c["n_head_kv"])
    writer.add_rope_dimension_count(c["n_embd"] // c["n_head"])
    writer.add_rope_freq_base(c["rope_base"])
    writer.add_layer_norm_rms_eps(c["norm_eps"])
    writer.add_vocab_size(c["n_vocab"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if args.type == "q8_0" else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    assert add_vocabulary(writer, os.path.join(args.work, "tokenizer.json")) == c["n_vocab"]
    for name, tensor in saved["model"].items():
        data = tensor.float().numpy()
        if data.ndim == 2 and args.type == "q8_0":
            writer.add_tensor(name, gguf.quants.quantize(data, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {os.path.getsize(args.out)} bytes, after {saved['step']} steps, {saved['tokens']} tokens, {saved['spent']:.0f} s")


if __name__ == "__main__":
    main()
