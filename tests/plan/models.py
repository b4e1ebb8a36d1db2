"""Models and deployments that the plan's tests share, on paper, from the independent configs of tests/families."""

from typing import Any

from families.configs import config

from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.target import PlannedModel, on_paper


def paper(name: str = "GLM-5.2", recipe: str | None = "nvfp4-routed-experts") -> PlannedModel:
    return on_paper(name, config(name), recipe)


def server(model: PlannedModel, gpu: str = "b200", gpus: int = 8, engine: str = "sglang", **options: Any) -> Deployment:
    return make_deployment(model.arch, find_gpu(gpu), gpus, engine, **options)
