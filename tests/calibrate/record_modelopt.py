"""Record what the real ModelOpt calibrates on tiny-glm. Run with the environment of ``benchmarks/peers``.

    .venv-peers/bin/python tests/calibrate/record_modelopt.py

Writes modelopt_amax.json next to this file: the amax of the inputs of every layer's routed experts (ModelOpt keeps one
input quantizer for gate and up and one for down), over the first 64 rows of calibration.jsonl, at most 512 tokens
each, chat template where there are messages. Float32 and eager attention, so that another float32 run can be compared
closely; ModelOpt itself is not changed. The lengths of the rows are recorded too: a tokenizer that disagreed would
explain any difference.
"""

import contextlib
import json
import sys
from pathlib import Path

import modelopt
import modelopt.torch.quantization as mtq
import torch
import transformers

HERE = Path(__file__).resolve().parent
TINY = HERE.parents[1] / "examples/tiny-glm"
ROWS, MAX_TOKENS = 64, 512


def batches() -> list[torch.Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    result = []
    for line in (TINY / "calibration.jsonl").read_text("utf-8").splitlines()[:ROWS]:
        row = json.loads(line)
        text = row.get("text")
        if text is None:
            text = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
        result.append(tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[:, :MAX_TOKENS])
    return result


def main() -> None:
    data = batches()
    with contextlib.redirect_stdout(sys.stderr):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            TINY, dtype=torch.float32, attn_implementation="eager"
        ).eval()

        def forward_loop(inner: torch.nn.Module) -> None:
            with torch.no_grad():
                for ids in data:
                    inner(input_ids=ids, use_cache=False)

        model = mtq.quantize(model, mtq.NVFP4_EXPERTS_ONLY_CFG, forward_loop)
    amax = {}
    for name, module in model.named_modules():
        if name.endswith("_input_quantizer") and getattr(module, "_amax", None) is not None:
            amax[name] = float(module._amax)
    versions = {"modelopt": modelopt.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    document = {
        "versions": versions,
        "rows": ROWS,
        "max_tokens": MAX_TOKENS,
        "lengths": [ids.shape[1] for ids in data],
        "input_amax": amax,
    }
    (HERE / "modelopt_amax.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(amax, indent=1))


if __name__ == "__main__":
    main()
