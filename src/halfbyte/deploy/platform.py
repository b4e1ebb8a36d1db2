"""`platform.yaml`: what a cluster has and for whom. Typed; `halfbyte deploy --example` prints a commented one."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from halfbyte.deploy.errors import DeployError
from halfbyte.errors import UsageError, said
from halfbyte.plan.hardware import find_gpu
from halfbyte.recipes.reading import Table, WrittenFile
from halfbyte.serve.tenant import Limits, check_name

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DOTTED = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
Label = Annotated[str, StringConstraints(pattern=_LABEL, max_length=63, strict=True)]
"""A name that Kubernetes takes (RFC 1123)."""
PoolName = Annotated[str, StringConstraints(pattern=_LABEL, max_length=30, strict=True)]
ModelName = Annotated[str, StringConstraints(pattern=_DOTTED, max_length=30, strict=True)]
"""What users ask for. Objects are called so too, with dashes for dots and up to nine characters more: a
LeaderWorkerSet under Kueue may have 39."""
Key = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        max_length=316,
        strict=True,
    ),
]
"""Key of a label or a taint."""
Value = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63, strict=True)
]
Count = Annotated[int, Field(ge=1, le=100_000, strict=True)]
Amount = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
Price = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False, strict=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]+$", strict=True)]


class Taint(Table):
    """Of a pool's nodes; Kueue gives its workloads the toleration."""

    key: Key
    value: Value = ""
    effect: Literal["NoSchedule", "NoExecute"] = "NoSchedule"


class Pool(Table):
    """Nodes of one kind. gpu: as `plan --gpu` names it. node_labels: by default the GPU's compute major, as NVIDIA's
    feature discovery labels nodes. topology: node labels from coarse to fine, for topology-aware scheduling."""

    name: PoolName
    gpu: str
    nodes: Count
    gpus_per_node: Count = 8
    cpus_per_node: Count = 128
    memory_per_node_gib: Count = 1024
    node_labels: dict[Key, Value] = Field(default_factory=dict, max_length=8)
    taint: Taint | None = None
    topology: tuple[Key, ...] = Field(default=(), max_length=16)
    usd_per_gpu_hour: Price

    @field_validator("gpu")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return find_gpu(name).name
        except UsageError as error:
            raise ValueError(error.message) from None

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


class Model(Table):
    """A served model. name: what users ask for. checkpoint: base name of its folder; without it the model is whatever
    TARGET is deployed. weights_image: OCI image volume that holds the weights (Kubernetes 1.35), instead of a claim
    that a Job fills. pool: by default the one with the plan's GPU. fallback_pools: where replicas beyond the least run
    when that one is full, in this order. max_replicas: by default all that these pools hold. priority: of Kueue, over
    batch work and other models."""

    name: ModelName
    checkpoint: Text | None = None
    weights_image: Text | None = None
    pool: PoolName | None = None
    fallback_pools: tuple[PoolName, ...] = Field(default=(), max_length=8)
    min_replicas: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 2
    max_replicas: Count | None = None
    priority: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)] = 10_000


class Tenant(Table):
    """limits: as `halfbyte tenants add` takes them. Keys are made there, and stand in no file."""

    name: str
    models: tuple[ModelName, ...] = Field(min_length=1)
    limits: Limits = Limits()

    @field_validator("name")
    @classmethod
    def _sound(cls, name: str) -> str:
        try:
            return check_name(name)
        except UsageError as error:
            raise ValueError(error.message) from None


class Prices(Table):
    """Dollars per million tokens."""

    prompt: Price
    cached: Price
    output: Price
    reasoning: Price


class Objectives(Table):
    """ttft_ms: to hold for 99 of 100 requests. queue_seconds: that a request may wait before a replica is added.
    p99_answer_seconds: longest answer but one in a hundred; replicas get that long to drain."""

    ttft_ms: Amount = 5000.0
    tpot_ms: Amount = 50.0
    queue_seconds: Amount = 20.0
    p99_answer_seconds: Amount = 600.0


class Images(Table):
    """By digest where you can. ray: of Halfbyte with Ray and its dashboard (`ray[default]`), for quantizing on Ray."""

    halfbyte: Text
    sglang: Text = "docker.io/lmsysorg/sglang:v0.5.23"
    vllm: Text = "docker.io/vllm/vllm-openai:v0.33.0"
    router: Text | None = None
    ray: Text | None = None


class Weights(Table):
    """source: folder or https:// address from which a Job fills the claim of a model, checking each file; `{model}` in
    it is the model's name. load_gb_per_s: at which a replica reads its weights. warm_up_seconds: kernels and graphs,
    after that."""

    source: Text
    storage_class: Label | None = None
    load_gb_per_s: Amount = 2.0
    warm_up_seconds: Amount = 300.0


class Database(Table):
    """The ledger of the doors: a Secret with a postgresql:// URL under `key`."""

    secret: Label = "halfbyte-ledger"
    key: Key = "url"


class Options(Table):
    """gateway: objects that lead there from outside. serving: who runs the replicas. router: smg before the engines of
    a model. quantize: parts as the pods of an Indexed Job, or as tasks of a Ray cluster that KubeRay makes."""

    gateway: Literal["none", "gateway-api", "inference-pool", "envoy-ai"] = "none"
    gateway_name: Label = "inference"
    serving: Literal["plain", "kserve"] = "plain"
    router: bool = False
    quantize: Literal["indexed-job", "ray-job"] = "indexed-job"


class Cluster(Table):
    """kubernetes: the version. wait_for_pods_ready_seconds: Kueue's timeout; null where it is off. prometheus: address
    that KEDA asks. monitoring_namespace, gateway_namespace, kuberay_namespace: where Prometheus, gateways and the
    operator of Ray run, who may therefore come in."""

    kubernetes: Annotated[str, StringConstraints(pattern=r"^1\.\d{2}$", strict=True)] = "1.34"
    wait_for_pods_ready_seconds: Count | None = None
    prometheus: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(:\d+)?(/\S*)?$", strict=True)]
    monitoring_namespace: Label = "monitoring"
    gateway_namespace: Label = "ingress"
    kuberay_namespace: Label = "kuberay-system"


class Platform(WrittenFile):
    """The whole file."""

    what: ClassVar = "platform"
    plural: ClassVar = "platforms"
    folder: ClassVar = "platforms"
    error: ClassVar = DeployError

    version: Literal[1]
    namespace: Label
    cluster: Cluster
    images: Images
    weights: Weights
    pools: tuple[Pool, ...] = Field(min_length=1)
    models: tuple[Model, ...] = Field(min_length=1)
    tenants: tuple[Tenant, ...] = ()
    objectives: Objectives = Objectives()
    prices: dict[ModelName, Prices]
    database: Database = Database()
    options: Options = Options()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for what, names in (
            ("pools", [pool.name for pool in self.pools]),
            ("models", [model.name for model in self.models]),
            ("tenants", [tenant.name for tenant in self.tenants]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{what}: {twice} stands there twice")
        served, pools = {model.name for model in self.models}, {pool.name for pool in self.pools}
        for model in self.models:
            named = (*(() if model.pool is None else (model.pool,)), *model.fallback_pools)
            for name in named:
                if name not in pools:
                    raise ValueError(f"models: {model.name} names pool {name}, which is none of {sorted(pools)}")
                if named.count(name) > 1:
                    raise ValueError(f"models: {model.name} names pool {name} twice")
            if model.max_replicas is not None and model.max_replicas < model.min_replicas:
                raise ValueError(
                    f"models: {model.name} has max_replicas {model.max_replicas}, below its "
                    f"min_replicas {model.min_replicas}"
                )
            if model.name not in self.prices:
                raise ValueError(f"prices: none for model {model.name}")
        if self.options.quantize == "ray-job" and self.images.ray is None:
            raise ValueError("images: ray is missing, which options.quantize ray-job asks for")
        for tenant in self.tenants:
            missing = next((name for name in tenant.models if name not in served), None)
            if missing is not None:
                raise ValueError(f"tenants: {tenant.name} names model {missing}, which is none of {sorted(served)}")
        anything = [model.name for model in self.models if model.checkpoint is None]
        if len(anything) > 1:
            raise ValueError(
                f"models: {anything[0]} and {anything[1]} name no checkpoint; only one may be for any TARGET"
            )
        return self

    def model_for(self, target: Path) -> Model:
        """The model that a checkpoint folder is served as. Raises DeployError."""
        name = target.resolve().name
        found = next((model for model in self.models if model.checkpoint == name), None)
        found = found or next((model for model in self.models if model.checkpoint is None), None)
        if found is None:
            known = ", ".join(str(model.checkpoint) for model in self.models)
            raise DeployError(
                f"platform: no model is served from {name}",
                hint=f"models have checkpoint: {known}; add one, or leave it out",
            )
        return found

    def pool(self, name: str) -> Pool:
        return next(pool for pool in self.pools if pool.name == name)

    def pool_for(self, model: Model, gpu: str) -> Pool:
        """The pool that a model's plan is for. Raises DeployError."""
        named = next((pool for pool in self.pools if pool.name == model.pool), None)
        if named is not None and named.gpu != gpu:
            raise DeployError(
                f"platform: model {model.name} runs in pool {named.name} of {named.gpu}, but the plan is for {gpu}",
                hint=said("halfbyte plan TARGET {gpu} {name}", name=named.gpu),
            )
        found = named or next((pool for pool in self.pools if pool.gpu == gpu), None)
        if found is None:
            known = ", ".join(f"{pool.name} ({pool.gpu})" for pool in self.pools)
            raise DeployError(f"platform: no pool has the plan's GPU {gpu}", hint=f"pools: {known}")
        return found
