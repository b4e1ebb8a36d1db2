"""A hub's cache on this machine: `models--OWNER--NAME/snapshots/COMMIT`, with `refs/main` naming the commit."""

import os
from pathlib import Path

from halfbyte.disk import read_regular
from halfbyte.errors import CheckpointError

CONFIG = "config.json"
LONGEST_REFERENCE_BYTES = 4096


def snapshot_of(folder: str | Path) -> Path:
    """The folder itself, or the snapshot in it if it is a model's folder in a hub's cache, or the cache with one model.

    Raises CheckpointError where there are several and none is `main`.
    """
    path = Path(folder)
    if not os.path.isdir(path) or os.path.exists(path / CONFIG):
        return path
    models = sorted(one for one in path.glob("models--*") if (one / "snapshots").is_dir())
    if models:
        if len(models) > 1:
            names = ", ".join(one.name.removeprefix("models--").replace("--", "/") for one in models[:10])
            raise CheckpointError(f"{path}: holds {len(models)} models: {names}", hint=f"give one of them: {models[0]}")
        path = models[0]
    if not (path / "snapshots").is_dir():
        return path
    snapshots = sorted(one for one in (path / "snapshots").iterdir() if one.is_dir())
    main = path / "refs" / "main"
    if os.path.isfile(main):
        commit = read_regular(main, LONGEST_REFERENCE_BYTES).decode("utf-8", "replace").strip()
        snapshots = [one for one in snapshots if one.name == commit] or snapshots
    if len(snapshots) != 1:
        raise CheckpointError(
            f"{path}: holds {len(snapshots)} snapshots, and refs/main names none of them",
            hint=f"give one of them: {snapshots[0]}" if snapshots else "download the model",
        )
    return snapshots[0]
