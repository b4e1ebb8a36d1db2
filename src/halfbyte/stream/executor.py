"""A model run layer by layer from disk: every sequence through one layer, then on to the next.

Of the weights only one layer's attention and a few experts are in memory at a time; of the activations a row for each
token, in memory as far as the budget goes, else in mapped files. A decoder layer takes three passes over the rows:

1. attention, residual, norm and router of each sequence; the inputs of the experts are kept
2. expert after expert over all its tokens, while the next ones are read
3. shared expert and residual of each sequence
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from halfbyte import __version__
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.disk import check_work
from halfbyte.errors import UsageError, said
from halfbyte.progress import Progress, Silent
from halfbyte.stream import attention
from halfbyte.stream.branch import Branch, Branches
from halfbyte.stream.budget import divide
from halfbyte.stream.contents import Contents
from halfbyte.stream.ends import Ends
from halfbyte.stream.layer import PLAIN_PARCEL_BYTES, LayerRun, Stores
from halfbyte.stream.model_config import plain_config
from halfbyte.stream.observer import Observer
from halfbyte.stream.reader import Reader
from halfbyte.stream.rows import Place, Rows
from halfbyte.stream.skeleton import Skeleton
from halfbyte.stream.snapshot import State, Work
from halfbyte.stream.state import Sequences
from halfbyte.stream.stats import Clock, LayerStats, Stats
from halfbyte.stream.weights import Loader

__all__ = ["Observer", "Streamed"]

BATCH_TOKENS = 8192
"""Of sequences of one length that a GPU attends to together."""


class Streamed:
    """A model run layer by layer from disk.

    with Streamed.open("GLM-5.2", memory_budget=30_000_000_000) as model:
        model.start(sequences)
        while model.next_layer < model.layers:
            model.step(observer)
        model.logits(0, 0, len(sequences[0]))

    layers: decoder layers. moe_layers: those with routed experts. indexer_layers: those that select keys themselves.
    roles: the names of its tensors explained. stats: where the time went, and peak memory.
    """

    def __init__(
        self,
        contents: Contents,
        skeleton: Skeleton,
        options: dict[str, Any],
        progress: Progress,
        closing: ExitStack,
    ) -> None:
        self._contents, self._skeleton, self._options, self._progress = contents, skeleton, options, progress
        self._closing = closing
        self.config = skeleton.config
        self.layers = contents.roles.layers
        self.vocab_size = int(skeleton.config.vocab_size)
        self.moe_layers = [i for i, layer in enumerate(contents.layers) if layer.experts]
        self.indexer_layers = sorted(contents.roles.indexers)
        self.roles = contents.roles
        self.num_experts = contents.roles.num_experts
        self.next_layer = 0
        self.stats = Stats()
        self._work: Work | None = None
        self._reader: Reader | None = None
        self._stores: Stores | None = None
        self._observed: bytes | None = None

    @classmethod
    def open(
        cls,
        source: str | Path | Checkpoint,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        memory_budget: int | None = None,
        activations: str | None = None,
        work: Path | None = None,
        attention: str | None = None,
        progress: Progress | None = None,
    ) -> "Streamed":
        """Open a checkpoint by its headers, wherever it lies; one that is open already is not closed.

        dtype: of computation; float32 on a CPU, bfloat16 on a GPU. memory_budget: resident bytes of this process;
        activations beyond it lie in files. activations: `a16`, or `a4-sim` to round the inputs of NVFP4 linears as a
        Blackwell engine does. work: folder for these files and for going on after a kill; a temporary one if None.
        attention: `eager`, `sparse` (models with an indexer) or `sdpa` (others); by length if None.
        Raises HalfbyteError for anything that keeps the model from running.
        """
        where = _device(device)
        dtype = dtype or (torch.float32 if where.type == "cpu" else torch.bfloat16)
        if activations not in (None, "a16", "a4-sim"):
            raise UsageError(f"activations {activations!r}: wanted a16 or a4-sim")
        with ExitStack() as stack:
            checkpoint = stack.enter_context(Checkpoint.of(source))
            if work is not None:
                check_work(work, checkpoint.kept_apart())
            config = plain_config(checkpoint.folder)
            contents = Contents.of(checkpoint, config)
            skeleton = Skeleton(config, dtype, where, contents.roles)
            closing = stack.pop_all()
        options = {"budget": memory_budget, "activations": activations, "work": work, "attention": attention}
        return cls(contents, skeleton, options, progress or Silent(), closing)

    @torch.no_grad()
    def start(
        self, sequences: Sequence[Tensor], key: str = "", anew: bool = False, branches: Sequence[Branch] = ()
    ) -> None:
        """Embed all sequences, each int64 [T], or go on where an earlier run of the same job was killed.

        key: whatever else the work folder's results depend on, such as an observer's options, or what the branches
        change. anew: whatever an earlier run left is removed. branches: their sequences come behind the model's own,
        all of the first branch, then all of the second; observers do not see them. Afterwards `next_layer` says where
        `step` begins.
        """
        self._stop()
        own = Sequences.of([*sequences] * (1 + len(branches)))
        config, device = self.config, self._skeleton.device
        self._observed = None
        self._work = Work(self._options["work"], self._progress.note)
        if anew:
            self._work.clear()
        self._fingerprint = self._identity(own, key)
        state = self._work.found(self._fingerprint)
        self.next_layer = 0 if state is None else state.layers
        if state is not None and state.observer is not None:
            self._observed = (self._work.folder / state.observer).read_bytes()
        if state is not None and state.hidden is None:
            return
        hidden_bytes = own.offsets[-1] * int(config.hidden_size) * self._skeleton.dtype.itemsize
        selected = self._selection_offsets(own)
        selection_bytes = 0 if selected is None else selected[-1] * 4 * int(config.index_topk)
        plan = divide(
            self._contents,
            config,
            self._skeleton.dtype,
            device,
            own.lengths,
            [
                hidden_bytes,
                hidden_bytes,
                hidden_bytes * self._skeleton.streams,
                selection_bytes,
                *([hidden_bytes * self.roles.arch.latent // self.roles.arch.hidden] if self.roles.arch.latent else []),
            ],
            self._options["budget"],
        )
        modes = [
            attention.mode_for(self._skeleton, length, plan.eager_bytes, self._options["attention"])
            for length in own.lengths
        ]
        self._stores = self._make_stores(own, selected, plan.places)
        self._ends = Ends(self._contents, self._skeleton, self._holds_head())
        if state is None:
            for number, ids in enumerate(sequences):
                self._stores.source.write(self._ends.embed(ids), number)
        else:
            self._resume(state)
        parcels = self._contents.parcels(self.next_layer, PLAIN_PARCEL_BYTES)
        total = sum(layer.bytes for layer in self._contents.layers)
        left = sum(layer.bytes for layer in self._contents.layers[self.next_layer :])
        self._progress.start(f"running {self._contents.checkpoint.folder.name}", total, total - left)
        self._reader = Reader(
            self._contents.checkpoint,
            parcels,
            plan.ahead_bytes,
            pinned=device.type == "cuda",
            threads=2 if device.type == "cpu" else 8,
        )
        alone = Sequences.of(sequences)
        groups = alone.groups(modes[: len(sequences)], 0 if device.type == "cpu" else BATCH_TOKENS)
        scratch = None if self._options["budget"] is None else max(1 << 20, min(plan.eager_bytes, 4 << 20))
        self._run = LayerRun(
            self._contents,
            self._skeleton,
            Loader(self._reader, device, self._progress),
            Branches(branches, groups, len(sequences), alone.offsets[-1]),
            scratch if device.type == "cpu" else None,
            self._options["activations"] == "a4-sim",
            sequences,
        )

    @torch.no_grad()
    def step(self, observer: Observer | None = None) -> int:
        """Run the next decoder layer over all sequences; returns its number."""
        if self._stores is None or self.next_layer >= self.layers:
            raise UsageError("no layer left to run", hint="call start() first, and step() while next_layer < layers")
        observer = observer or Observer()
        self.restore(observer)
        number = self.next_layer
        stats = LayerStats(number)
        clock = Clock(stats, self._skeleton.device)
        self._run.run(number, self._stores, observer, clock)
        clock.finish()
        self.stats.layers.append(stats)
        self.next_layer += 1
        if self._options["work"] is not None:
            self._keep(number, observer)
        else:
            self._stores.source = self._stores.target
        return number

    def restore(self, observer: Observer) -> None:
        """Give an observer what it knew when an earlier run was killed; `step` does so by itself, if it is called."""
        if self._observed is not None:
            observer.load(self._observed)
            self._observed = None

    def hidden(self, sequence: int) -> Tensor:
        """[T, H] after the layers run so far, or [T, streams x H]; do not write into it."""
        assert self._stores is not None, "start() comes first"
        return self._stores.source.read(sequence)

    @property
    def join(self) -> Callable[[Tensor], Tensor]:
        """How an expert makes its intermediate [n, I] of gate and up [n, 2I], or of up: the same in all layers."""
        return self._skeleton.join(self.moe_layers[0])

    @torch.no_grad()
    def logits(self, sequence: int, start: int, stop: int) -> Tensor:
        """float32 [stop - start, V] after the last layer. Bits equal the whole model's when asked for all positions."""
        if self.next_layer < self.layers:
            raise UsageError(f"logits after {self.next_layer} of {self.layers} layers", hint="run step() to the end")
        return self._ends.logits(self.hidden(sequence)[start:stop])

    @torch.no_grad()
    def openness(self, sequence: int, start: int, stop: int) -> Tensor:
        """float32 [stop - start] after the last layer: see `ends.Ends.openness`."""
        if self.next_layer < self.layers:
            raise UsageError(f"openness after {self.next_layer} of {self.layers} layers", hint="run step() to the end")
        return self._ends.openness(self.hidden(sequence)[start:stop])

    def finish(self) -> None:
        """Only the observer's findings are wanted from here on: drop the activations, also from the work folder."""
        assert self._work is not None, "start() comes first"
        self._stores = None
        self._work.finish(self._fingerprint, self.layers)

    def close(self) -> None:
        """Stop reading, remove temporary files. A work folder that was given stays."""
        self._stop()
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._stores = None
        if self._work is not None:
            self._work.close()
            self._work = None

    def _selection_offsets(self, own: Sequences) -> list[int] | None:
        """Rows of the selection store: long sequences only, and only where layers share a selection."""
        indexers = self._contents.roles.indexers
        sparse = self._contents.roles.family.sparse_attention
        if sparse is None or not sparse.shares or len(indexers) == self.layers:
            return None
        offsets = [0]
        for length in own.lengths:
            offsets.append(offsets[-1] + (length if length > self.config.index_topk else 0))
        return offsets

    def _make_stores(self, own: Sequences, selected: list[int] | None, places: Sequence[Place]) -> Stores:
        assert self._work is not None
        folder, device, dtype = self._work.folder, self._skeleton.device, self._skeleton.dtype
        streams, arch = self._skeleton.streams, self.roles.arch

        def rows(name: str, place: Place, each: int = 1, width: int = int(self.config.hidden_size)) -> Rows:
            return Rows(own.offsets, each * width, dtype, place, device, folder / name)

        inputs, outputs = rows("rows-inputs", places[0]), rows("rows-outputs", places[1], width=arch.expert_hidden)
        latent = rows("rows-latent", places[4], width=arch.latent) if arch.latent else None
        two = self._options["work"] is not None and places[2] == "file"
        first = rows("hidden-0", places[2], streams)
        second = rows("hidden-1", places[2], streams) if two else first
        if self.next_layer % 2 and two:
            first, second = second, first
        selection = None
        if selected is not None:
            topk = int(self.config.index_topk)
            selection = Rows(selected, topk, torch.int32, places[3], device, folder / "rows-selection")
        shares = None
        if streams > 1:
            shares = Rows(own.offsets, streams, dtype, places[0], device, folder / "rows-shares")
        return Stores(first, second, inputs, outputs, selection, shares, latent)

    def _keep(self, number: int, observer: Observer) -> None:
        """Write down that a layer is finished."""
        assert self._work is not None
        assert self._stores is not None
        folder, stores = self._work.folder, self._stores
        hidden = f"hidden-{self.next_layer % 2}"
        if stores.source is stores.target:
            self._work.wrote(hidden, stores.target.save(folder / hidden))
        else:
            self._work.wrote(hidden, stores.target.flush(folder / hidden))
            stores.source, stores.target = stores.target, stores.source
        selection = None
        if stores.selection is not None:
            selection = f"selection-{max(i for i in self.indexer_layers if i <= number)}"
            if number in self.indexer_layers:
                self._work.wrote(selection, stores.selection.save(folder / selection))
        observed = None
        if observer.wants("state"):
            observed = f"observer-{number}"
            self._work.write(observed, observer.state())
        self._work.commit(State(self._fingerprint, self.next_layer, hidden, selection, observed))

    def _resume(self, state: State) -> None:
        assert self._work is not None
        assert self._stores is not None
        stores = self._stores
        if stores.source is stores.target and state.hidden is not None:
            stores.source.load(self._work.folder / state.hidden)
        if stores.selection is not None and state.selection is not None:
            stores.selection.load(self._work.folder / state.selection)

    def _holds_head(self) -> bool:
        budget = self._options["budget"]
        size = self.vocab_size * int(self.config.hidden_size) * self._skeleton.dtype.itemsize
        return budget is None or self._skeleton.device.type == "cuda" or 2 * size < budget // 4

    def _identity(self, own: Sequences, key: str) -> str:
        """Equal for runs whose finished layers hold the same numbers."""
        checkpoint = self._contents.checkpoint
        return fingerprint_of(
            {
                "halfbyte": __version__,
                "source": source_identity(checkpoint.shards.values()),
                "config": checkpoint.config,
                "sequences": own.sha256,
                "dtype": str(self._skeleton.dtype),
                "device": self._skeleton.device.type,
                "options": [self._options["activations"], self._options["attention"], self._options["budget"]],
                "key": key,
            }
        )


def _device(name: str) -> torch.device:
    """Raises UsageError for a device that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r}: wanted cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device cuda: this machine has no CUDA device that torch can use", hint=said("use {device} cpu")
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r}: wanted cpu or cuda")
    return device
