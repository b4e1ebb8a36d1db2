"""`probe`: a right and a wrongly scaled checkpoint in llama.cpp, and each engine's answers in its own shape."""

import json
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from halfbyte.errors import UsageError
from halfbyte.evidence.reference import ReferenceDocument
from halfbyte.progress import Silent
from halfbyte.serve.probe.ask import Engine, ProbeError
from halfbyte.serve.probe.verdict import Thresholds, judge
from serve.doors import door, halfbyte

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny-glm"
TEXT = str(TINY / "heldout.txt")
KEYS = {"positions", "top1_agreement", "mean_abs_logprob_difference", "nll_engine", "nll_reference"}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "tiny-nvfp4"
    halfbyte("quantize", str(TINY), str(folder))
    return folder


@pytest.fixture(scope="module")
def reference(quantized: Path) -> Path:
    file = quantized.parent / "ref.json"
    words = ("--data", TEXT, "-o", str(file), "--positions", "60")
    halfbyte("probe", "--make-reference", str(quantized), *words)
    return file


def wrongly_scaled(source: Path, target: Path) -> None:
    """Every expert's second-level scale doubled, as an engine that applies a factor twice computes."""
    shutil.copytree(source, target)
    (target / "halfbyte.json").unlink()
    for shard in target.glob("*.safetensors"):
        raw = bytearray(shard.read_bytes())
        size = struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8 : 8 + size]).items():
            if name.endswith("down_proj.weight_scale_2"):
                start = 8 + size + entry["data_offsets"][0]
                (scale,) = struct.unpack("<f", raw[start : start + 4])
                raw[start : start + 4] = struct.pack("<f", 2.5 * scale)
        shard.write_bytes(raw)


@pytest.mark.slow
def test_a_right_and_a_wrongly_scaled_checkpoint(quantized: Path, reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    wrong = tmp_path / "wrong"
    wrongly_scaled(quantized, wrong)
    cache, own = str(tmp_path / "cache"), str(tmp_path / "own")
    found: dict[str, Any] = {}
    for folder, code in ((quantized, 0), (wrong, 1)):
        with door(str(folder), log=tmp_path / "log", ready_s=60, HALFBYTE_CACHE=cache, HALFBYTE_STATE=own) as running:
            said = halfbyte("probe", running.url, "--reference", str(reference), "--json", code=code)
        found[folder.name] = json.loads(said.splitlines()[0])
        assert {*KEYS, "verdict"} <= set(found[folder.name])
    right, scaled = found[quantized.name], found["wrong"]
    assert (right["verdict"], scaled["verdict"]) == ("agrees", "differs")
    assert right["positions"] == 60
    assert right["nll_engine"] == pytest.approx(right["nll_reference"], abs=0.05)
    assert scaled["top1_agreement"] < right["top1_agreement"]
    ask = ("serve", str(wrong), "--port", "0", "--probe", str(reference))
    assert "does not compute" in halfbyte(*ask, code=1, HALFBYTE_CACHE=cache, HALFBYTE_STATE=own)


@pytest.mark.slow
def test_compare_keeps_a_reference_too(quantized: Path, reference: Path, tmp_path: Path) -> None:
    file = tmp_path / "ref.json"
    words = ("--data", TEXT, "--tokens", "600", "--save-reference", str(file))
    halfbyte("compare", str(TINY), str(quantized), *words)
    kept, made = ReferenceDocument.read(file), ReferenceDocument.read(reference)
    assert (kept.positions, made.positions) == (320, 60)
    ours, theirs = kept.sequences[0], made.sequences[0]
    assert ours.ids[:76] == theirs.ids
    assert ours.logprobs[:40] == pytest.approx(theirs.logprobs[:40], abs=1e-3)


REFERENCE = ReferenceDocument(
    reference_version=1,
    model_type="m",
    vocab_size=10,
    computed="by hand",
    positions=60,
    sequences=[
        {  # type: ignore[list-item]
            "ids": [n % 7 for n in range(64)],
            "first": 4,
            "logprobs": [-0.5] * 60,
            "top_ids": [[n % 7, 9] for n in range(4, 64)],
            "top_logprobs": [[-0.5, -3.0]] * 60,
        }
    ],
    halfbyte="0",
)


def prompt_logprobs(ids: list[int], off: float) -> list[dict[str, Any] | None]:
    return [None] + [{str(one): {"logprob": -0.5 - off, "rank": 1}} for one in ids[1:]]


@contextmanager
def fake(kind: str, off: float = 0.0) -> Iterator[str]:
    """An engine's own way to answer. off: by how much its log-probabilities are."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/v1/models": {"data": [{"id": "m"}]}} | ({"/model_info": {}} if kind == "native" else {})
            self.answer(known.get(self.path))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            ids = asked.get("input_ids") or asked["prompt"]
            rows = [[None, ids[0], None]] + [[-0.5 - off, one, None] for one in ids[1:]]
            tops = [None] + [[row] for row in rows[1:]]
            after = [{"id": len(ids) % 7, "logprob": -0.5 - off}, {"id": 9, "logprob": -3.0}]
            self.answer(
                {
                    "native": {"meta_info": {"input_token_logprobs": rows, "input_top_logprobs": tops}},
                    "prompt": {"choices": [{"prompt_logprobs": prompt_logprobs(ids, off)}]},
                    "next": {"choices": [{"logprobs": {"content": [{"top_logprobs": after}]}}]},
                    "broken": {"choices": [{}]},
                }[kind]
            )

        def answer(self, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(200 if document is not None else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["native", "prompt", "next"])
@pytest.mark.parametrize(("off", "verdict"), [(0.0, "agrees"), (0.2, "undecided"), (0.5, "differs")])
def test_every_engines_answers(kind: str, off: float, verdict: str) -> None:
    with fake(kind, off) as url:
        found = judge(REFERENCE, Engine(url).scores(REFERENCE, Silent()), Thresholds())
    assert found.verdict == verdict
    assert found.mean_abs_logprob_difference == pytest.approx(off)
    assert (found.positions, found.top1_agreement) == (60, 1.0)


def test_exit_codes_and_what_is_no_engine(tmp_path: Path) -> None:
    file = tmp_path / "ref.json"
    REFERENCE.write(file)
    with fake("prompt", 0.2) as url:
        assert json.loads(halfbyte("probe", url, "--reference", str(file), "--json", code=3).splitlines()[0])
        told = halfbyte("probe", url, "--reference", str(file), "--agree-difference", "0.3")
        assert "agrees up to 0.3" in told
    with fake("broken") as url, pytest.raises(ProbeError):
        Engine(url).scores(REFERENCE, Silent())
    halfbyte("probe", "http://127.0.0.1:9", "--reference", str(file), code=1)
    halfbyte("probe", "http://127.0.0.1:9", "--reference", str(tmp_path / "none"), code=2)
    halfbyte("probe", code=2)
    with pytest.raises(UsageError):
        Thresholds(agree_top1=0.5, differ_top1=0.9)
