"""`halfbyte schema`"""

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.cli.output import command, print_json
from halfbyte.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

DOCUMENTS = {
    "halfbyte": "halfbyte.evidence.dossier.Dossier",
    "gate": "halfbyte.evidence.decision.DecisionDocument",
    "plan": "halfbyte.evidence.plan.PlanDocument",
    "recipe": "halfbyte.recipes.recipe.Recipe",
    "policy": "halfbyte.recipes.policy.Policy",
    "platform": "halfbyte.deploy.platform.Platform",
}
"""Name -> its type, imported when it is asked for."""


@command
def schema(
    document: Annotated[str, typer.Argument(help=f"{', '.join(DOCUMENTS)}.")],
) -> None:
    """Print the JSON Schema of a document: halfbyte.json, gate.json, plan.json, a recipe, a policy or a platform.

    Example: halfbyte schema policy > policy.schema.json
    """
    if document not in DOCUMENTS:
        raise UsageError(f"no document is called {document[:40]!r}", hint=f"known: {', '.join(DOCUMENTS)}")
    print_json(schema_of(document), indent=2)


def schema_of(document: str) -> dict[str, Any]:
    """The JSON Schema of one of `DOCUMENTS`."""
    module, _, name = DOCUMENTS[document].rpartition(".")
    model: type[BaseModel] = getattr(import_module(module), name)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}
