"""`halfbyte usage`"""

from typing import Annotated, Any, Literal

import typer

from halfbyte.cli.output import Json, command, print_json, print_table, say_block


@command
def usage(
    state: Annotated[
        str | None, typer.Option(help="Folder or postgresql:// URL of the ledger.  [default: the user's own]")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Of tenant, model, day, request.  [default: tenant,model,day]")] = None,
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD, UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day.")] = None,
    format: Annotated[Literal["table", "csv", "json", "focus"], typer.Option(help="How to print it.")] = "table",
    json_output: Json = False,
) -> None:
    """What tenants used and paid, from the ledger, and what the machines cost beyond that.

    Example: halfbyte usage --state ./state --by tenant,day --since 2026-11-01 --format csv
    """
    from halfbyte.serve.focus import focus_csv
    from halfbyte.serve.ledger.opening import with_ledger
    from halfbyte.serve.usage import as_csv, columns_of, query_from, usage_document

    query = query_from(by, since, until)
    if format == "focus" and not json_output:
        say_block(with_ledger(state, lambda ledger: ledger.run(focus_csv(query))))
        return
    document = with_ledger(state, lambda ledger: ledger.run(usage_document(query)))
    if format == "json" or json_output:
        print_json(document)
    elif format == "csv":
        say_block(as_csv(document, query))
    else:
        columns = columns_of(query)
        totals = {columns[0]: "total"} | document["totals"]
        rows = [[_cell(row.get(name)) for name in columns] for row in document["rows"]]
        print_table("usage", columns, rows, [_cell(totals.get(name)) for name in columns])


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
