"""`halfbyte tenants add|list|show|rotate|revoke`"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.cli.output import Json, command, print_json, say

if TYPE_CHECKING:
    from halfbyte.serve.keys import NewKey

APP = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Tenants of a door: keys, limits per minute, budgets per day and month, priority, allowed models.",
)

State = Annotated[
    str | None, typer.Option("--state", help="Folder or postgresql:// URL of the ledger.  [default: the user's own]")
]
Name = Annotated[str, typer.Argument(help="The tenant.", metavar="NAME")]
Expires = Annotated[str | None, typer.Option("--expires", help="Last day of the key, YYYY-MM-DD, UTC.")]


@APP.command("add")
@command
def add(
    name: Name,
    state: State = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="In any 60 seconds.")] = None,
    input_tokens_per_minute: Annotated[int | None, typer.Option(help="Prompt tokens in any 60 seconds.")] = None,
    output_tokens_per_minute: Annotated[int | None, typer.Option(help="Reasoning included.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once, waiting ones included.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Prompt and output; days are UTC's.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(help="Prompt and output.")] = None,
    usd_per_day: Annotated[float | None, typer.Option(help="Dollars; the door needs --price then.")] = None,
    usd_per_month: Annotated[float | None, typer.Option(help="Dollars.")] = None,
    priority: Annotated[int | None, typer.Option(help="-100 to 100; higher goes first where requests wait.")] = None,
    models: Annotated[str | None, typer.Option(help="Served models that it may ask for.  [default: all]")] = None,
    expires: Expires = None,
    json_output: Json = False,
) -> None:
    """Add a tenant and print its key, once.

    Example: halfbyte tenants add acme --state ./state --requests-per-minute 60 --usd-per-day 20
    """
    from halfbyte.serve.administration import enroll, expiry_from
    from halfbyte.serve.keys import new_key
    from halfbyte.serve.ledger.opening import with_ledger
    from halfbyte.serve.tenant import Limits, check_name, limits_from

    values: dict[str, Any] = dict(locals())
    chosen = {option: values[option] for option in Limits.model_fields if option != "models"}
    if models is not None:
        chosen["models"] = tuple(dict.fromkeys(model.strip() for model in models.split(",") if model.strip()))
    limits = limits_from(chosen)
    key = new_key()
    script = enroll(check_name(name), limits, key, time.time(), expiry_from(expires))
    with_ledger(state, lambda ledger: ledger.run(script), create=True)
    _print_key(name, key, json_output)


@APP.command("list")
@command
def list_(state: State = None, json_output: Json = False) -> None:
    """All tenants: limits, what they used today and this month, what is reserved."""
    found = _shown(None, state)
    if json_output:
        print_json(found)
        return
    from halfbyte.cli.output import print_table

    rows = [
        (
            tenant["tenant"],
            str(len(tenant["keys"])),
            *(f"{tenant['used'][period][kind]:,}" for period in ("day", "month") for kind in ("requests", "tokens")),
            f"{tenant['used']['month']['usd']:.4f}",
            f"{tenant['reserved']['tokens']:,}",
        )
        for tenant in found
    ]
    names = ("tenant", "keys", "requests today", "tokens today", "requests", "tokens", "dollars", "reserved tokens")
    print_table("tenants, this day and month (UTC)", names, rows)


@APP.command("show")
@command
def show(name: Name, state: State = None, json_output: Json = False) -> None:
    """One tenant: limits, what it used, what is reserved."""
    (found,) = _shown(name, state)
    if json_output:
        print_json(found)
        return
    say(found["tenant"])
    for limit, value in found["limits"].items():
        if value is not None:
            say(f"  {limit.replace('_', ' ')}: {value if limit != 'models' else ', '.join(value)}")
    for what, used in (("today", found["used"]["day"]), ("this month", found["used"]["month"])):
        say(f"  used {what}: {used['requests']:,} requests, {used['tokens']:,} tokens, {used['usd']:.6f} dollars")
    held = found["reserved"]
    say(f"  reserved: {held['requests']:,} requests, {held['tokens']:,} tokens, {held['usd']:.6f} dollars")
    for key in found["keys"]:
        say(f"  key hb-{key['prefix']}-..., {'until ' + key['expires'] if key['expires'] else 'without end'}")


@APP.command("rotate")
@command
def rotate(
    name: Name,
    state: State = None,
    expires: Expires = None,
    retire: Annotated[bool, typer.Option("--retire", help="End the old keys now.")] = False,
    json_output: Json = False,
) -> None:
    """Print a new key; the old one stays valid until the next rotation."""
    from halfbyte.serve.administration import Rotation, expiry_from
    from halfbyte.serve.administration import rotate as run
    from halfbyte.serve.keys import new_key
    from halfbyte.serve.ledger.opening import with_ledger

    key = new_key()
    script = run(name, key, time.time(), Rotation(expiry_from(expires), retire))
    with_ledger(state, lambda ledger: ledger.run(script))
    _print_key(name, key, json_output)


@APP.command("revoke")
@command
def revoke(name: Name, state: State = None, json_output: Json = False) -> None:
    """End all keys of a tenant; what it used stays in the ledger."""
    from halfbyte.serve.administration import revoke as run
    from halfbyte.serve.ledger.opening import with_ledger

    ended = with_ledger(state, lambda ledger: ledger.run(run(name)))
    if json_output:
        print_json({"tenant": name, "revoked": ended})
    else:
        say(f"{name}: {ended} keys ended")


def _shown(name: str | None, state: str | None) -> list[dict[str, Any]]:
    from halfbyte.serve.administration import shown
    from halfbyte.serve.ledger.opening import with_ledger

    return with_ledger(state, lambda ledger: ledger.run(shown(name, time.time())))


def _print_key(name: str, key: "NewKey", json_output: bool) -> None:
    if json_output:
        print_json({"tenant": name, "key": key.text})
        return
    say(key.text)
    typer.echo(f"the key of {name}; it is kept nowhere and shown this once", err=True)
