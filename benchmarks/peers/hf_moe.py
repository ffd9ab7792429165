#!/usr/bin/env python3
"""The CPU yardstick (benchmarks/configs/moe_hidden512.yaml) as a Hugging Face user trains it: Qwen3MoeForCausalLM of
transformers in a plain loop with AdamW. A peer of `sluice bench`; compare_cpu.py runs both.

  hf_moe.py --experts eager --dtype bf16 --json peer.json

In bf16 weights, gradients and moments are bf16, as a model loaded so trains: there is no fp32 master."""
import argparse
import json
import math
import statistics
import sys
import time

import torch
import transformers

# The sizes of moe_hidden512.yaml.
CONFIG = dict(vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2,
              head_dim=64, num_experts=16, num_experts_per_tok=4, moe_intermediate_size=256, intermediate_size=256,
              rms_norm_eps=1e-6, max_position_embeddings=512, tie_word_embeddings=False, norm_topk_prob=True,
              rope_parameters={"rope_type": "default", "rope_theta": 1e6}, use_cache=False)


def main():
    p = argparse.ArgumentParser(description="transformers peer of sluice bench on a CPU")
    p.add_argument("--experts", default="eager", help="experts_implementation: eager, batched_mm, grouped_mm")
    p.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of weights, products and moments [fp32]")
    p.add_argument("--adamw", choices=("loop", "foreach", "fused"), default="loop", help="how AdamW steps [loop]")
    p.add_argument("--compile", action="store_true", help="torch.compile of the model")
    for name, preset, text in (("layers", 8, ""), ("batch", 8, "sequences"), ("seq", 512, "tokens"), ("warmup", 2, "steps"),
                               ("steps", 5, "timed steps"), ("seed", 1234, "")):
        p.add_argument("--" + name, type=int, default=preset, help=f"{text} [{preset}]".strip())
    p.add_argument("--json", help="also write the results to a file")
    c = p.parse_args()

    torch.manual_seed(c.seed)
    config = transformers.Qwen3MoeConfig(**{**CONFIG, "num_hidden_layers": c.layers})
    config._attn_implementation = "sdpa"
    config._experts_implementation = c.experts
    dtype = torch.bfloat16 if c.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    if c.compile:
        model.compile()
    how = {"loop": {"foreach": False}}.get(c.adamw, {c.adamw: True})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, **how)
    losses, times = [], []
    for step in range(c.warmup + c.steps):
        tokens = torch.randint(config.vocab_size, (c.batch, c.seq))
        begin = time.perf_counter()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= c.warmup:
            times.append(time.perf_counter() - begin)
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"error: the loss is {losses[-1]} at step {step}")
        print(f"transformers step {step + 1}/{c.warmup + c.steps}  loss {losses[-1]:.3f}", file=sys.stderr)
    seconds = statistics.median(times)
    result = {"peer": "transformers", "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
              "threads": torch.get_num_threads(), "attention": model.config._attn_implementation,
              "experts": model.config._experts_implementation, "adamw": c.adamw, "compiled": c.compile,
              "dtypes": f"parameters, gradients and moments {str(dtype)[6:]}, no fp32 master",
              "parameters": sum(q.numel() for q in model.parameters()),
              "step_time_s": {"median": seconds, "min": min(times), "max": max(times), "all": times},
              "tokens_per_s": c.batch * c.seq / seconds, "loss": losses}
    print(json.dumps({k: v for k, v in result.items() if k != "loss"}))
    if c.json:
        with open(c.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
