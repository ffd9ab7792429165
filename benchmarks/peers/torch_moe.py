#!/usr/bin/env python3
"""The blocks of a Qwen3 MoE decoder in PyTorch, as fast as its own parts make them: a peer of `sluice bench`.

  torch_moe.py --layers 8 --local-shard 8 --json peer.json          Qwen3-30B-A3B's sizes on a GPU
  torch_moe.py --device cpu --tiny --no-compile --check              small, and held to plain loops first

What it is made of: torch.compile on every block; scaled_dot_product_attention with grouped heads, by whichever of its
backends is faster here; grouped_mm for the experts (a loop over them where that is missing, and then it says so), rows
sorted by expert, both directions as gathers; the head and cross-entropy in chunks with their gradients made on the way;
AdamW, fused on a GPU. Parameters, gradients and moments have one type (bf16 on a GPU, fp32 on the CPU, or --dtype), as
autograd keeps them: no fp32 master.
What it is given is sluice's: batch, sequence, layers, gate, local shard, warm-up and median of the steps."""
import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

try:
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:  # before torch 2.3; on a CPU there is nothing to choose
    SDPBackend = sdpa_kernel = None

GROUPED_MM = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
TINY = dict(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, experts=8, top_k=4, ffn=16, vocab=256, seq=64,
            micro_batch=2, micro_batches=2)


# --- the experts' side of a block -------------------------------------------------------------------------------------

class ToExperts(torch.autograd.Function):
    """rows[m] = x[m's token]; the gradient gathers a token's rows instead of scattering with atomics."""

    @staticmethod
    def forward(ctx, x, token_of_row, row_of_slot):
        ctx.save_for_backward(row_of_slot)
        return x[token_of_row]

    @staticmethod
    def backward(ctx, drows):
        (row_of_slot,) = ctx.saved_tensors
        return drows[row_of_slot].sum(1), None, None


class FromExperts(torch.autograd.Function):
    """y[t] = sum over t's slots of rows[row of the slot]: the other direction."""

    @staticmethod
    def forward(ctx, rows, token_of_row, row_of_slot):
        ctx.save_for_backward(token_of_row)
        return rows[row_of_slot].sum(1)

    @staticmethod
    def backward(ctx, dy):
        (token_of_row,) = ctx.saved_tensors
        return dy[token_of_row], None, None


def grouped_product(rows, weight, ends):
    """rows of expert e times weight[e] transposed; `ends` are the segments' ends."""
    if GROUPED_MM is not None and rows.dtype == torch.bfloat16:
        return GROUPED_MM(rows, weight.transpose(-2, -1), offs=ends)
    pieces, begin = [], 0
    for expert, end in enumerate(ends.tolist()):
        pieces.append(rows[begin:end] @ weight[expert].T)
        begin = end
    return torch.cat(pieces)


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.local = c.experts // c.local_shard
        self.gate_up = nn.Parameter(torch.empty(self.local, 2 * c.ffn, c.hidden))
        self.down = nn.Parameter(torch.empty(self.local, c.hidden, c.ffn))
        self.router = nn.Parameter(torch.empty(c.experts, c.hidden)) if c.balance == "router" else None

    def route(self, x):
        tokens, k = x.shape[0], self.c.top_k
        if self.router is None:
            slot = torch.arange(tokens * k, device=x.device).view(tokens, k)
            return slot % self.c.experts, torch.full((tokens, k), 1.0 / k, device=x.device)
        probs = (x @ self.router.T).float().softmax(-1)
        weights, experts = probs.topk(k)
        return experts, weights / weights.sum(-1, keepdim=True)

    def forward(self, x):
        experts, weights = self.route(x)
        by_expert, slot_of_row = (experts % self.local).flatten().sort(stable=True)
        ends = torch.searchsorted(by_expert, torch.arange(self.local, device=x.device), right=True, out_int32=True)
        token_of_row = slot_of_row // self.c.top_k
        row_of_slot = torch.empty_like(slot_of_row)
        row_of_slot[slot_of_row] = torch.arange(slot_of_row.numel(), device=x.device)
        row_of_slot = row_of_slot.view_as(experts)

        rows = ToExperts.apply(x, token_of_row, row_of_slot)
        gate, up = grouped_product(rows, self.gate_up, ends).chunk(2, -1)
        weight = ToExperts.apply(weights.reshape(-1, 1), slot_of_row, row_of_slot.reshape(-1, 1))
        h = (F.silu(gate.float()) * up.float() * weight).to(x.dtype)
        return FromExperts.apply(grouped_product(h, self.down, ends), token_of_row, row_of_slot)


# --- attention and the block ------------------------------------------------------------------------------------------

def rms_norm(x, weight):
    if hasattr(F, "rms_norm"):
        return F.rms_norm(x, weight.shape, weight, 1e-6)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def causal_attention(q, k, v):
    """[B, heads, S, hd] of q, fewer heads of k and v; with what the version of torch has."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    hidden = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).masked_fill(hidden, -math.inf).softmax(-1) @ v


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.qkv = nn.Parameter(torch.empty((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden))
        self.out = nn.Parameter(torch.empty(c.hidden, c.heads * c.head_dim))
        self.q_norm = nn.Parameter(torch.ones(c.head_dim))
        self.k_norm = nn.Parameter(torch.ones(c.head_dim))

    def forward(self, x, cos, sin):
        c = self.c
        heads = F.linear(x, self.qkv).view(-1, c.seq, c.heads + 2 * c.kv_heads, c.head_dim)
        q, k, v = heads.split((c.heads, c.kv_heads, c.kv_heads), 2)
        q = rotate(rms_norm(q, self.q_norm), cos, sin)
        k = rotate(rms_norm(k, self.k_norm), cos, sin)
        y = causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return F.linear(y.transpose(1, 2).reshape(x.shape[0], -1), self.out)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.norm1 = nn.Parameter(torch.ones(c.hidden))
        self.norm2 = nn.Parameter(torch.ones(c.hidden))
        self.attention = Attention(c)
        self.experts = Experts(c)

    def forward(self, x, cos, sin):
        x = x + self.attention(rms_norm(x, self.norm1), cos, sin)
        return x + self.experts(rms_norm(x, self.norm2))


# --- head and model ---------------------------------------------------------------------------------------------------

def loss_and_gradient(logits, labels, scale):
    """Sum of the chunk's cross-entropy, and its gradient times `scale` in the type of the logits."""
    values = logits.float()
    log_sum = values.logsumexp(-1, keepdim=True)
    loss = (log_sum.squeeze(-1) - values.gather(-1, labels[:, None]).squeeze(-1)).sum()
    hit = torch.arange(values.shape[-1], device=values.device)[None, :] == labels[:, None]
    return loss, (((values - log_sum).exp() - hit.float()) * scale).to(logits.dtype)


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy of x W^T in chunks of tokens; both gradients are made in forward, so no chunk is kept."""

    @staticmethod
    def forward(ctx, x, weight, labels, chunk, compiled):
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        loss = torch.zeros((), device=x.device)
        for begin in range(0, x.shape[0], chunk):
            part = slice(begin, min(begin + chunk, x.shape[0]))
            one, dlogits = compiled(x[part] @ weight.T, labels[part], 1.0 / x.shape[0])
            loss += one
            torch.mm(dlogits, weight, out=dx[part])
            dw.addmm_(dlogits.T, x[part])
        ctx.save_for_backward(dx, dw)
        return loss / x.shape[0]

    @staticmethod
    def backward(ctx, dloss):
        dx, dw = ctx.saved_tensors
        return dx.mul_(dloss), dw.mul_(dloss), None, None, None


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embedding = nn.Parameter(torch.empty(c.vocab, c.hidden))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.final_norm = nn.Parameter(torch.ones(c.hidden))
        self.head = nn.Parameter(torch.empty(c.vocab, c.hidden))
        self.loss_and_gradient = loss_and_gradient
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        inverse = 1e6 ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
        angle = torch.arange(c.seq, dtype=torch.float64)[:, None] * inverse
        self.register_buffer("cos", angle.cos().float()[None, :, None, :], persistent=False)
        self.register_buffer("sin", angle.sin().float()[None, :, None, :], persistent=False)

    def compile_parts(self, mode):
        for block in self.blocks:
            block.compile(dynamic=False, mode=mode)
        self.loss_and_gradient = torch.compile(loss_and_gradient, dynamic=False, mode=mode)

    def forward(self, tokens, labels):
        x = F.embedding(tokens.flatten(), self.embedding)
        for block in self.blocks:
            if self.c.recompute == "full":
                x = torch.utils.checkpoint.checkpoint(block, x, self.cos, self.sin, use_reentrant=False)
            else:
                x = block(x, self.cos, self.sin)
        x = rms_norm(x, self.final_norm)
        return HeadLoss.apply(x, self.head, labels.flatten(), self.c.head_chunk, self.loss_and_gradient)


def flops_per_sequence(c):
    """The published formula, forward and backward: the causal half of attention, no recomputation, router or norms."""
    n, kv, hd = c.heads, c.kv_heads, c.head_dim
    block = c.seq * c.hidden * hd * (2 * n + 2 * kv) + c.seq * c.seq * hd * n + c.seq * c.hidden * 3 * c.ffn * c.top_k
    return 6.0 * (c.layers * block + c.seq * c.hidden * c.vocab)


# --- measuring --------------------------------------------------------------------------------------------------------

def synchronize(c):
    if c.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(c, run, repeats):
    """Median time of a call, each alone on the device."""
    times = []
    for _ in range(repeats + 1):
        synchronize(c)
        begin = time.perf_counter()
        run()
        synchronize(c)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def fastest_attention(c, dtype):
    """Times the backends of scaled_dot_product_attention on the model's shape; returns the fastest and all times."""
    if c.device != "cuda":
        return None, {}
    shape = lambda heads: torch.randn(c.micro_batch, c.seq, heads, c.head_dim, device=c.device, dtype=dtype,
                                      requires_grad=True)
    q, k, v = shape(c.heads), shape(c.kv_heads), shape(c.kv_heads)
    dy = torch.randn(c.micro_batch, c.heads, c.seq, c.head_dim, device=c.device, dtype=dtype)
    times = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        def run():
            y = causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            torch.autograd.grad(y, (q, k, v), dy)
        try:
            with sdpa_kernel(backend):
                times[backend] = seconds_of(c, run, 5)
        except RuntimeError as error:
            print(f"attention by {backend.name}: not here ({str(error).splitlines()[0]})", file=sys.stderr)
    return (min(times, key=times.get) if times else None), {b.name: s for b, s in times.items()}


def ceilings(c):
    """What the device does at best, measured now: a large product of random bf16 numbers, a copy in its memory."""
    if c.device != "cuda":
        return {}
    n = 8192
    a, b = (torch.randn(n, n, device=c.device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    gemm = seconds_of(c, lambda: [torch.mm(a, b, out=out) for _ in range(10)], 5) / 10
    x = torch.randn(1 << 29, device=c.device, dtype=torch.float32)
    y = torch.empty_like(x)
    copy = seconds_of(c, lambda: [y.copy_(x) for _ in range(10)], 5) / 10
    return {"gemm_8192_tflop_per_s": 2e-12 * n ** 3 / gemm, "copy_gbyte_per_s": 2e-9 * x.numel() * 4 / copy}


def train(c, dtype):
    torch.manual_seed(c.seed)
    with torch.device(c.device) if c.device == "cuda" else contextlib.nullcontext():
        model = Model(c)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    if c.compile:
        model.compile_parts(None if c.compile_mode == "default" else c.compile_mode)
    optimizer = None
    if c.optimizer:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
                                      **({"foreach": False} if c.adamw == "loop" else {c.adamw: True}))
    losses, times = [], []
    for step in range(c.warmup + c.steps):
        batches = torch.randint(c.vocab, (c.micro_batches, c.micro_batch, c.seq + 1), device=c.device)
        synchronize(c)
        begin = time.perf_counter()
        total = torch.zeros((), device=c.device)
        for batch in batches:
            loss = model(batch[:, :-1], batch[:, 1:]) / c.micro_batches
            loss.backward()
            total += loss.detach()
        if optimizer is not None:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        synchronize(c)
        seconds = time.perf_counter() - begin
        losses.append(total.item())
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"error: the loss is {losses[-1]} at step {step}")
        if step >= c.warmup:
            times.append(seconds)
        print(f"peer step {step + 1}/{c.warmup + c.steps}  loss {losses[-1]:.3f}  {seconds:.3f} s", file=sys.stderr)
    return losses, times


# --- held to plain loops ----------------------------------------------------------------------------------------------

def plain_experts(module, x):
    """The same layer, token by token and slot by slot."""
    experts, weights = module.route(x)
    rows = []
    for token in range(x.shape[0]):
        y = torch.zeros_like(x[token])
        for slot in range(module.c.top_k):
            e = int(experts[token, slot]) % module.local
            gate, up = (module.gate_up[e] @ x[token]).chunk(2)
            y = y + module.down[e] @ (F.silu(gate) * up * weights[token, slot])
        rows.append(y)
    return torch.stack(rows)


def check(c):
    """Output and every gradient of the experts, and of head and loss, against plain loops in fp32. Returns the worst
    error over the largest value."""
    torch.manual_seed(c.seed)
    worst = 0.0

    def compare(got, expected):
        nonlocal worst
        for one, other in zip(got, expected, strict=True):
            largest = other.abs().max().item()
            assert largest > 0, "a gradient is all zero"
            worst = max(worst, (one - other).abs().max().item() / largest)

    for balance in ("published", "router"):
        module = Experts(argparse.Namespace(**{**vars(c), "balance": balance}))
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
        x = torch.randn(12, c.hidden, requires_grad=True)
        r = torch.randn(12, c.hidden)
        inputs = [x, *module.parameters()]
        results = [(y, *torch.autograd.grad((y * r).sum(), inputs)) for y in (module(x), plain_experts(module, x))]
        compare(*results)
    x, w = torch.randn(12, c.hidden, requires_grad=True), torch.randn(c.vocab, c.hidden, requires_grad=True)
    labels = torch.randint(c.vocab, (12,))
    if GROUPED_MM is not None:
        # Its own kernels, on bf16 rows, against the loop on the same numbers.
        rows, weight = torch.randn(12, 32, dtype=torch.bfloat16), torch.randn(3, 16, 32, dtype=torch.bfloat16)
        ends = torch.tensor([5, 5, 12], dtype=torch.int32)
        got, expected = grouped_product(rows, weight, ends).float(), grouped_product(rows.float(), weight.float(), ends)
        assert ((got - expected).abs() <= 2.0 ** -8 * expected.abs().max()).all(), "grouped_mm is not the loop"
    losses = (HeadLoss.apply(x, w, labels, 5, loss_and_gradient), F.cross_entropy(x @ w.T, labels))
    compare(*[(loss, *torch.autograd.grad(loss, (x, w))) for loss in losses])
    return worst


# --- the command ------------------------------------------------------------------------------------------------------

def arguments():
    p = argparse.ArgumentParser(description="PyTorch peer of sluice bench: Qwen3-30B-A3B's sizes unless told otherwise")
    for name, preset, text in (("hidden", 2048, "width"), ("layers", 4, ""), ("heads", 32, ""), ("kv-heads", 4, ""),
                               ("head-dim", 128, ""), ("experts", 128, "the router chooses from"), ("top-k", 8, ""),
                               ("ffn", 768, "width of an expert"), ("vocab", 151936, ""), ("seq", 4096, "tokens"),
                               ("micro-batch", 4, "sequences"), ("micro-batches", 16, "of a step"),
                               ("local-shard", 1, "N: 1/N of the experts, expert e as e mod (E/N)"),
                               ("head-chunk", 4096, "tokens whose logits exist at a time"),
                               ("warmup", 3, "steps"), ("steps", 5, "timed steps"), ("seed", 1234, "")):
        p.add_argument("--" + name, type=int, default=None, help=f"{text} [{preset}]".strip())
        p.set_defaults(presets={**(p.get_default("presets") or {}), name.replace("-", "_"): preset})
    p.add_argument("--tiny", action="store_true", help="sizes that take moments on a CPU, where none is given")
    p.add_argument("--balance", choices=("published", "router"), default="published")
    p.add_argument("--recompute", choices=("none", "full"), default="none")
    p.add_argument("--no-optimizer", dest="optimizer", action="store_false")
    p.add_argument("--adamw", choices=("loop", "foreach", "fused"), help="how AdamW steps [fused on a GPU, else foreach]")
    p.add_argument("--no-compile", dest="compile", action="store_false")
    p.add_argument("--compile-mode", default="default", help="of torch.compile")
    p.add_argument("--dtype", choices=("bf16", "fp32"), help="[bf16 on a GPU, fp32 on a CPU]")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--peak-tflops", type=float, default=989.0, help="denominator of MFU [989]")
    p.add_argument("--check", action="store_true", help="hold the parts to plain loops first")
    p.add_argument("--json", help="also write the results to a file")
    c = p.parse_args()
    for name, preset in vars(c).pop("presets").items():
        if getattr(c, name) is None:
            setattr(c, name, TINY.get(name, preset) if c.tiny else preset)
    if c.experts % c.local_shard or c.hidden % 2 or c.heads % c.kv_heads:
        p.error(f"local-shard {c.local_shard} must divide experts {c.experts}, kv-heads {c.kv_heads} heads {c.heads}")
    return c


def main():
    c = arguments()
    if c.check:
        worst = check(c)
        print(f"experts, head and loss against plain loops: worst error {worst:.1e} of the largest value")
        if not worst < 1e-4:
            raise SystemExit("error: the peer does not compute what it should")
    c.dtype = c.dtype or ("bf16" if c.device == "cuda" else "fp32")
    c.adamw = c.adamw or ("fused" if c.device == "cuda" else "foreach")
    dtype = torch.bfloat16 if c.dtype == "bf16" else torch.float32
    backend, attention_times = fastest_attention(c, dtype)
    best = ceilings(c)
    with sdpa_kernel(backend) if backend else contextlib.nullcontext():
        losses, times = train(c, dtype)

    seconds = statistics.median(times)
    tokens = c.micro_batches * c.micro_batch * c.seq
    tflops = flops_per_sequence(c) * c.micro_batches * c.micro_batch / seconds * 1e-12
    grouped = GROUPED_MM is not None and dtype == torch.bfloat16
    result = {
        "peer": "PyTorch", "device": torch.cuda.get_device_name() if c.device == "cuda" else platform.processor(),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(),
                     "cudnn": torch.backends.cudnn.version() if c.device == "cuda" else None},
        "threads": torch.get_num_threads(), "command": " ".join(sys.argv),
        "settings": {k: v for k, v in sorted(vars(c).items()) if k not in ("json", "device")},
        "dtypes": f"parameters, gradients and moments {str(dtype)[6:]}, no fp32 master",
        "experts_by": "grouped_mm" if grouped else "a loop over experts", "attention_by": backend.name if backend else "CPU",
        "attention_seconds": attention_times, "ceilings": best,
        "step_time_s": {"median": seconds, "min": min(times), "max": max(times), "all": times},
        "tokens_per_s_per_gpu": tokens / seconds, "model_tflops_per_s_per_gpu": tflops,
        "mfu": tflops / c.peak_tflops, "gflop_per_token": flops_per_sequence(c) * 1e-9 / c.seq, "loss": losses,
        "local_shard": f"1/{c.local_shard}" if c.local_shard > 1 else None, "layers": c.layers,
        "optimizer_state_dtype": str(dtype)[6:] if c.optimizer else "none", "balance": c.balance,
        "recompute": c.recompute, "compiled": c.compile,
        "max_memory_bytes": torch.cuda.max_memory_allocated() if c.device == "cuda" else None,
    }
    print(f"PyTorch {torch.__version__} on {result['device'] or c.device}: {c.layers} layers, "
          f"local shard {result['local_shard'] or 'none'}, batch {c.micro_batches} x {c.micro_batch} x {c.seq}, "
          f"balance {c.balance}, recompute {c.recompute}, {'compiled' if c.compile else 'not compiled'}, "
          f"experts by {result['experts_by']}, attention by {result['attention_by']}, {result['dtypes']}, "
          f"{'with' if c.optimizer else 'without'} the optimizer")
    print(f"{seconds:.4f} s/step (median of {len(times)} after {c.warmup}), {tokens / seconds:,.0f} tok/s, "
          f"{tflops:.4g} model TFLOP/s" + (f", MFU {100 * result['mfu']:.1f} %" if c.device == "cuda" else ""))
    if c.json:
        partial = c.json + ".part"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
        os.replace(partial, c.json)


if __name__ == "__main__":
    main()
