"""What is installed and what is missing for what; nothing is changed, and nothing missing is an error."""

import platform
from dataclasses import asdict, dataclass
from typing import Any

from halfbyte import __version__
from halfbyte.doctor.machine import disk, gpus, memory_bytes
from halfbyte.doctor.options import DoctorOptions
from halfbyte.doctor.packages import Extra, extras, installed
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.local import LOCAL
from halfbyte.process import cores


@dataclass(frozen=True)
class Diagnosis:
    """engines: name -> version, None where it is not installed here. no_gpu: why there is none."""

    halfbyte: str
    python: str
    system: str
    processors: int
    memory_bytes: int
    extras: list[Extra]
    engines: dict[str, str | None]
    gpus: list[dict[str, Any]]
    no_gpu: str | None
    disk: dict[str, Any] | None

    @property
    def missing(self) -> list[str]:
        """What is missing for what, a line each; what no user needs left out."""
        return [
            f"{one.serves}: {', '.join(one.missing)} missing; {one.hint}"
            for one in self.extras
            if one.missing and one.name not in ("dev", "docs")
        ]

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["extras"] = {one.name or "core": asdict(one) | {"whole": one.is_whole} for one in self.extras}
        return document | {"missing": self.missing}


def doctor(options: DoctorOptions | None = None, **given: Any) -> Diagnosis:
    """Look at this machine. given: fields of DoctorOptions by name, instead of `options`."""
    options = options or DoctorOptions(**given)
    found, none = gpus()
    return Diagnosis(
        __version__,
        platform.python_version(),
        platform.platform(),
        cores(),
        memory_bytes(),
        extras(),
        {str(name): installed(name) for name in (*LOCAL_PACKAGES, *ENGINES)},
        found,
        none,
        disk(options.folder, options.disk_mb * 1_000_000) if options.disk_mb else None,
    )


LOCAL_PACKAGES = tuple(dict.fromkeys(module for modules in LOCAL.values() for module in modules))
"""What runs models in this process."""
