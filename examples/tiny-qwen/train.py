"""Train tiny-qwen: a Qwen3-MoE-shaped model (GQA with normed heads, softmax router, no shared expert, no dense layer).

Two stages, cut by elapsed time, both with dense attention: short rows, then long ones.  The data, the
optimizer, the tokenizer and the way a checkpoint is written are tiny-glm's (``../tiny-glm``).  The routed
experts are computed as one wide MLP whose unselected experts are multiplied by zero, which is exact and,
at this size, faster than grouping tokens.  The router is balanced by Qwen's auxiliary loss.
"""
from __future__ import annotations

import argparse
import importlib.util
import math
import queue
import sys
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GLM = Path(__file__).resolve().parent.parent / "tiny-glm"
sys.path.insert(0, str(GLM))
_spec = importlib.util.spec_from_file_location("tiny_glm", GLM / "train.py")  # it is called train too
assert _spec and _spec.loader
glm = sys.modules["tiny_glm"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(glm)

CONFIG: dict = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": None, "decoder_sparse_step": 1, "dtype": "bfloat16",
    "eos_token_id": [4076, 4083, 4085], "head_dim": 64, "hidden_act": "silu", "hidden_size": 256,
    "initializer_range": 0.02, "intermediate_size": 512, "max_position_embeddings": 8192, "max_window_layers": 6,
    "mlp_only_layers": [], "moe_intermediate_size": 128, "norm_topk_prob": True, "num_attention_heads": 8,
    "num_experts": 16, "num_experts_per_tok": 4, "num_hidden_layers": 6, "num_key_value_heads": 2,
    "output_router_logits": False, "pad_token_id": 4076, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 100000, "rope_type": "default"}, "rope_theta": 100000,
    "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False, "use_cache": True,
    "use_sliding_window": False, "vocab_size": 4096,
}

HEADS, KV_HEADS, DIM, EXPERTS, TOPK, MOE_DIM, EPS = 8, 2, 64, 16, 4, 128, 1e-6


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of halves; x is [..., T, DIM], cos/sin are [T, DIM/2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def attention_in(h: Tensor, ln: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, qn: Tensor, kn: Tensor, cos: Tensor, sin: Tensor
                 ) -> tuple[Tensor, Tensor, Tensor]:
    """Heads q [B, HEADS, T, DIM], k and v [B, KV_HEADS, T, DIM] of the normed input h [B, T, hidden]."""
    b, t, _ = h.shape
    c = glm.COMPUTE
    x = glm.rms(h, ln, EPS)
    q = glm.rms(F.linear(x, wq.to(c)).view(b, t, HEADS, DIM), qn, EPS).transpose(1, 2)
    k = glm.rms(F.linear(x, wk.to(c)).view(b, t, KV_HEADS, DIM), kn, EPS).transpose(1, 2)
    v = F.linear(x, wv.to(c)).view(b, t, KV_HEADS, DIM).transpose(1, 2)
    return rope(q, cos, sin), rope(k, cos, sin), v


def moe_out(h: Tensor, o: Tensor, wo: Tensor, ln: Tensor, router: Tensor, wg: Tensor, wu: Tensor, wd: Tensor
            ) -> tuple[Tensor, Tensor, Tensor]:
    """Attention output and MoE residuals (flat tokens), the tokens per expert and the balance loss of this layer."""
    c = glm.COMPUTE
    h = h + F.linear(o, wo.to(c))
    x = glm.rms(h, ln, EPS)
    scores = F.linear(x.float(), router.float()).softmax(-1)
    picked = torch.topk(scores.detach(), TOPK, dim=-1, sorted=False).indices
    chosen = torch.zeros_like(scores).scatter(1, picked, 1.0)
    gate = scores * chosen
    gate = (gate / gate.sum(-1, keepdim=True)).to(c)
    hidden = wg.shape[-1]
    act = F.silu(F.linear(x, wg.to(c).view(-1, hidden))) * F.linear(x, wu.to(c).view(-1, hidden))
    act = (act.view(-1, EXPERTS, MOE_DIM) * gate.unsqueeze(-1)).view(-1, EXPERTS * MOE_DIM)
    down = wd.to(c).permute(0, 2, 1).reshape(EXPERTS * MOE_DIM, hidden)
    load = chosen.sum(0)
    return h + act @ down, load, EXPERTS * (scores.mean(0) * load / load.sum()).sum()


class TinyQwen(nn.Module):
    """Training-time form of the model; :meth:`export` gives the checkpoint tensors."""

    def __init__(self) -> None:
        super().__init__()
        d, self.n_layers = CONFIG["hidden_size"], CONFIG["num_hidden_layers"]
        p: dict[str, Tensor] = {"embed": torch.randn(CONFIG["vocab_size"], d) * 0.1,
                                "head": torch.randn(CONFIG["vocab_size"], d) * 0.02, "norm": torch.ones(d)}

        def mat(name: str, *shape: int, scale: float = 0.6) -> None:
            p[name] = torch.randn(*shape) * scale / math.sqrt(shape[-1])

        for i in range(self.n_layers):
            pre = f"l{i}_"
            p[pre + "ln1"], p[pre + "ln2"] = torch.ones(d), torch.ones(d)
            p[pre + "qn"], p[pre + "kn"] = torch.ones(DIM), torch.ones(DIM)
            mat(pre + "q", HEADS * DIM, d), mat(pre + "k", KV_HEADS * DIM, d), mat(pre + "v", KV_HEADS * DIM, d)
            mat(pre + "o", d, HEADS * DIM, scale=0.2)
            p[pre + "router"] = torch.randn(EXPERTS, d) * 0.02
            mat(pre + "eg", EXPERTS, MOE_DIM, d), mat(pre + "eu", EXPERTS, MOE_DIM, d)
            mat(pre + "ed", EXPERTS, d, MOE_DIM, scale=0.2)
        self.p = nn.ParameterDict({k: nn.Parameter(v) for k, v in p.items()})

    def forward(self, ids: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Final hidden states [B, T, hidden], expert loads by layer and the balance loss."""
        p = self.p
        b, t = ids.shape
        inv = 1.0 / CONFIG["rope_theta"] ** (torch.arange(0, DIM, 2, device=ids.device).float() / DIM)
        angle = torch.arange(t, device=ids.device).float()[:, None] * inv
        cos, sin = angle.cos(), angle.sin()
        h = p["embed"][ids].to(glm.COMPUTE)
        loads: list[Tensor] = []
        balance = torch.zeros((), device=ids.device)
        for i in range(self.n_layers):
            w = lambda n: p[f"l{i}_{n}"]
            q, k, v = FUSED["attention_in"](h, w("ln1"), w("q"), w("k"), w("v"), w("qn"), w("kn"), cos, sin)
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            o = o.transpose(1, 2).reshape(b * t, HEADS * DIM)
            flat, load, term = FUSED["moe_out"](h.reshape(b * t, -1), o, w("o"), w("ln2"), w("router"), w("eg"), w("eu"), w("ed"))
            loads.append(load)
            balance = balance + term
            h = flat.view(b, t, -1)
        return h, loads, balance

    def export(self) -> dict[str, Tensor]:
        """Checkpoint tensors under their published names."""
        out: dict[str, Tensor] = {}
        put = lambda n, v: out.__setitem__(n, v.detach().to("cpu", torch.bfloat16).contiguous())
        put("model.embed_tokens.weight", self.p["embed"]), put("lm_head.weight", self.p["head"])
        put("model.norm.weight", self.p["norm"])
        names = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm", "qn": "self_attn.q_norm", "kn": "self_attn.k_norm",
                 "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
                 "router": "mlp.gate"}
        for i in range(self.n_layers):
            for short, name in names.items():
                put(f"model.layers.{i}.{name}.weight", self.p[f"l{i}_{short}"])
            for short, name in (("g", "gate"), ("u", "up"), ("d", "down")):
                for e in range(EXPERTS):
                    put(f"model.layers.{i}.mlp.experts.{e}.{name}_proj.weight", self.p[f"l{i}_e{short}"][e])
        return out


FUSED = {"attention_in": attention_in, "moe_out": moe_out, "lm_loss": glm.lm_loss}


def main() -> None:
    """Train for a fixed time and write the checkpoint."""
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--text", required=True, help="token array of make_data.py encode")
    a.add_argument("--filler", required=True, help="prose.txt of make_data.py corpus")
    a.add_argument("--out", required=True)
    a.add_argument("--seconds", type=float, default=400, help="training time; the schedule follows the clock")
    a.add_argument("--tokens", type=int, default=131072, help="tokens per step")
    a.add_argument("--short", type=int, default=1024), a.add_argument("--long", type=int, default=4096)
    a.add_argument("--stage-b", type=float, default=0.55, help="share of the time after which rows are long")
    a.add_argument("--balance", type=float, default=0.01), a.add_argument("--lr", type=float, default=3e-3)
    a.add_argument("--workers", type=int, default=14), a.add_argument("--text-share", type=float, default=0.33)
    a.add_argument("--report", type=float, default=15), a.add_argument("--compile", action="store_true")
    args = a.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    glm.COMPUTE = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    batches = glm.Batches(args.text, args.filler, GLM, args.workers, args.tokens, args.text_share, args.short)
    if args.compile:
        for name in FUSED:
            FUSED[name] = torch.compile(FUSED[name], dynamic=False)
    model = TinyQwen().to(device)
    matrices = [n for n in model.p if model.p[n].ndim >= 2 and n not in ("embed", "head") and not n.endswith("router")]
    others = [n for n in model.p if n not in matrices]
    routers = [n for n in others if n.endswith("router")]
    muon = glm.Muon([model.p[n] for n in matrices])
    adam = torch.optim.AdamW([{"params": [model.p["embed"], model.p["head"]], "weight_decay": 0.05},
                              {"params": [model.p[n] for n in others if model.p[n].ndim < 2], "weight_decay": 0.0},
                              {"params": [model.p[n] for n in routers], "weight_decay": 0.05, "scale": 0.2}],
                             lr=args.lr, betas=(0.9, 0.95), fused=device.type == "cuda")
    print(f"{sum(q.numel() for q in model.parameters()) / 1e6:.2f}M parameters", flush=True)
    weight_of = torch.tensor(glm.LOSS_WEIGHT, device=device)
    want = {"length": args.short}
    ready: queue.Queue = queue.Queue(maxsize=4)
    threading.Thread(target=glm.prefetch, args=(batches, want, ready, device), daemon=True).start()
    start = last = time.time()
    step = tokens = mark = 0
    sums = torch.zeros(3, 5, device=device)
    load_sum = [torch.zeros(EXPERTS, device=device) for _ in range(model.n_layers)]
    while (frac := (time.time() - start) / args.seconds) < 1:
        if frac >= args.stage_b - 0.06:
            batches.length.value = args.long
        length = want["length"] = args.short if frac < args.stage_b else args.long
        while True:
            t, ids, cls = ready.get(timeout=120)
            if t == length:
                break
        lr = args.lr * min(1.0, (step + 1) / 60) * (1.0 if frac < 0.6 else max(0.03, (1 - frac) / 0.4))
        h, loads, balance = model(ids[:, :-1])
        target, klass = ids[:, 1:].reshape(-1), cls[:, 1:].reshape(-1)
        loss, per, hit = FUSED["lm_loss"](h.reshape(-1, h.shape[-1]), model.p["norm"], model.p["head"], target, weight_of[klass])
        (loss + args.balance * balance).backward()
        norm = torch.nn.utils.clip_grad_norm_([model.p[n] for n in others], 1.0)
        muon.step(lr)
        for group in adam.param_groups:
            group["lr"] = lr * group.get("scale", 1.0)
        adam.step()
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for load, total in zip(loads, load_sum):
                total += load
            for row, value in enumerate((per, hit.float(), torch.ones_like(per))):
                sums[row].index_add_(0, klass, value)
        step += 1
        tokens += target.numel()
        if step <= 3 or time.time() - last > args.report:
            s = sums.cpu().numpy()
            n = s[2].clip(1)
            spread = [f"{(x.min() / x.sum()).item():.3f}-{(x.max() / x.sum()).item():.3f}" for x in load_sum]
            print(f"{time.time() - start:5.0f}s step {step} rows {length} {(tokens - mark) / (time.time() - last) / 1e3:.0f}k tok/s lr {lr:.1e}"
                  f" | loss prompt {s[0][0] / n[0]:.3f} target {s[0][1] / n[1]:.3f} ({s[1][1] / n[1]:.3f}) filler {s[0][2] / n[2]:.3f}"
                  f" recall {s[0][3] / n[3]:.3f} ({s[1][3] / n[3]:.3f}) text {s[0][4] / n[4]:.3f} | grad {norm.item():.2f}"
                  f" load {spread[0]} {spread[-1]} shards {batches.fresh}", flush=True)
            sums.zero_()
            for total in load_sum:
                total.zero_()
            last, mark = time.time(), tokens
    want["length"] = 0
    glm.CONFIG = CONFIG
    glm.write_checkpoint(model.export(), Path(args.out))
    print(f"done: {step} steps, {tokens / 1e6:.1f}M tokens in {time.time() - start:.0f}s", flush=True)
    batches.close()


if __name__ == "__main__":
    main()
