"""`squeezenet bench`: how fast a file runs on this machine, and how near that is to what the processor can do."""

from __future__ import annotations

import json

import click

from ..text import format_bytes, printable, table


@click.command()
@click.argument("model")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="Threads to use.  [default: one per core]")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True,
              help="Time for each measurement.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(model: str, threads: int | None, seconds: float, as_json: bool) -> None:
    """Time a compressed network.

    \b
    Latency is measured with one image at a time, throughput with batches of 32, both from raw
    pixels. The share of the peak is relative to a loop of multiply-accumulates in registers,
    measured on this machine with one thread.
    """
    from .. import benchmark

    try:
        found = benchmark(model, threads=threads, seconds=seconds)
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    facts = [
        ("kernels", found.kernels),
        ("load and decode", f"{found.load_ms:.1f} ms"),
        ("weights and activations", format_bytes(found.memory_bytes)),
        ("multiply-accumulates per image", f"{found.macs:,}"),
        ("peak of one thread", f"{found.peak_gmacs} GMAC/s" if found.peak_gmacs else "not measured"),
    ]
    if found.peak_rss_bytes:
        facts.append(("peak memory of the process", format_bytes(found.peak_rss_bytes)))
    click.echo(table(("", printable(model)), facts))
    click.echo("\n" + table(("threads", "median", "p95", "images/s", "GMAC/s", "of peak"), found.rows()))
