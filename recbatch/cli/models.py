"""``recbatch models``: the weights that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import bytes_text, columns, count, print_json

HELP = """List, show and verify the models of the package.

\b
Examples:
  recbatch models ls
  recbatch models show photo-s
"""

LS_HELP = """List the models of the package.

\b
Examples:
  recbatch models ls
  recbatch models ls --json
"""

SHOW_HELP = """Show one model: digest, size, how it came about.

\b
Examples:
  recbatch models show photo-s
  recbatch models show photo-s --json
"""

VERIFY_HELP = """Load models and code a test picture with each, there and back.

\b
Examples:
  recbatch models verify
  recbatch models verify photo-s
"""

models_app = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(models_app, name="models", help=HELP)


@models_app.command("ls", help=LS_HELP)
def ls(as_json: options.Json = False, debug: options.Debug = False) -> None:
    from recbatch import api

    known = [api.model(name) for name in api.model_names()]
    if as_json:
        print_json(known)
        return
    rows = [["NAME", "DIGEST", "SIZE", "ARCHITECTURE"]]
    rows += [[m.name, m.digest[:16], bytes_text(m.size_bytes), m.architecture] for m in known]
    typer.echo(columns(rows, right=[2]))


@models_app.command("show", help=SHOW_HELP)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, as 'recbatch models ls' prints it.")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    model = api.model(name)
    if as_json:
        print_json(model)
        return
    rows = [
        ["name", model.name],
        ["digest", model.digest],
        ["size", bytes_text(model.size_bytes)],
        ["parameters", f"{model.parameters:,}"],
        ["architecture", model.architecture],
        *([key, value] for key, value in sorted(model.metadata.items())),
    ]
    typer.echo(columns(rows))


@models_app.command("verify", help=VERIFY_HELP)
def verify(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model instead of all.")] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    checks = [api.verify_model(model) for model in ([name] if name else api.model_names())]
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            back = "every pixel" if check.psnr is None else f"PSNR {check.psnr:.2f} dB"
            typer.echo(f"{check.name}: {check.problem or f'ok, {back} at {check.bpp:.3f} bpp'}")
        typer.echo(f"{count(len(checks), 'model')} checked")
    raise typer.Exit(1 if any(check.problem for check in checks) else 0)
