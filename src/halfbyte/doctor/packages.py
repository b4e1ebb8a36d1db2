"""Which packages each extra wants, from our own package's metadata, and which of them are there."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

OURS = "halfbyte"
SERVES = {
    "": "quantize, verify, inspect, gate, plan, verdict, deploy, bundle",
    "local": "export, chat, serve with llama.cpp",
    "torch": "calibrate, compare, search, probe, rounding on data, transformers",
    "cuda": "NVFP4 matrices on Hopper GPUs",
    "data": "Parquet files and data sets of the hub",
    "evaluate": "evaluate",
    "benchmarks": "evaluate --suite glm-5.2",
    "serve": "serve, tenants, usage",
    "otel": "serve --otlp",
    "gateway": "serve --router smg, ledgers in PostgreSQL",
    "sign": "checking signatures in gate",
    "report": "report, --plot",
    "cloud": "sources and outputs in object storage: s3://, gs://, az://",
    "ray": "quantize and calibrate on every machine of a Ray cluster",
    "docs": "make docs",
    "dev": "the tests",
}
"""What an extra is for, in commands; the empty one is the core."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Extra:
    """name: empty for the core. installed: package -> version. missing: packages."""

    name: str
    serves: str
    installed: dict[str, str]
    missing: list[str]

    @property
    def is_whole(self) -> bool:
        return not self.missing

    @property
    def hint(self) -> str:
        return f"pip install '{OURS}[{self.name}]'" if self.name else f"pip install {OURS}"


def extras() -> list[Extra]:
    """The core, then each extra; none where Halfbyte runs from its source without being installed."""
    try:
        names = metadata(OURS).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []
    wanted: dict[str, list[str]] = {"": [], **{name: [] for name in names}}
    for requirement in requires(OURS) or []:
        found = _EXTRA.search(requirement)
        wanted.setdefault(found.group(1) if found else "", []).append(requirement)
    return [_extra(name, _spelled_out(name, wanted)) for name in wanted if name in SERVES]


def _spelled_out(name: str, wanted: dict[str, list[str]]) -> list[str]:
    """Packages of an extra, those of the extras that it names too."""
    packages: list[str] = []
    for requirement in wanted.get(name, []):
        named = _NAME.match(requirement)
        assert named is not None, requirement
        if named.group().lower() == OURS:
            inner = requirement[requirement.index("[") + 1 : requirement.index("]")]
            for extra in inner.split(","):
                packages += _spelled_out(extra.strip(), wanted)
        else:
            packages.append(named.group())
    return list(dict.fromkeys(packages))


def _extra(name: str, packages: list[str]) -> Extra:
    found = {package: installed(package) for package in packages}
    return Extra(
        name,
        SERVES[name],
        {package: is_there for package, is_there in found.items() if is_there is not None},
        [package for package, is_there in found.items() if is_there is None],
    )


def installed(package: str) -> str | None:
    """Its version. Nothing is imported: torch alone takes seconds."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
