"""`squeezenet info`: the layer table of an architecture, or the contents of a model file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..accounting import ALEXNET_FILE_BYTES, ALEXNET_MACS, ALEXNET_PARAMS, LayerCost, NetworkCost, network_cost
from ..spec import SPEC_NAMES, ArchSpec, named_spec
from ..text import format_bytes, format_count, printable, table
from .model_names import resolve_model

if TYPE_CHECKING:
    from ..fileformat import SqzFile


@click.command()
@click.argument("model", metavar="NAME|MODEL")
@click.option("--input-size", type=int, default=None, help="Input height and width for a NAME.  [default: the paper's]")
@click.option("--num-classes", type=int, default=None, help="Number of classes for a NAME.  [default: 1000]")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(model: str, input_size: int | None, num_classes: int | None, as_json: bool) -> None:
    """Show layers, parameters, multiply-accumulates and bytes.

    \b
    NAME is an architecture: squeezenet1_0 or squeezenet1_1, alone or with _simple_bypass or
    _complex_bypass. For a .sqz file the bytes of every layer are shown as well.
    """
    facts: dict[str, Any]
    contents = None
    if model in SPEC_NAMES:
        # The paper's table of 1.0 holds for 227 pixels, which Caffe cropped to; 1.1 was published at 224.
        paper_size = 227 if model.startswith("squeezenet1_0") else 224
        spec = named_spec(
            model,
            input_size=paper_size if input_size is None else input_size,
            num_classes=1000 if num_classes is None else num_classes,
        )
        facts = {}
    else:
        if input_size is not None or num_classes is not None:
            raise click.UsageError("--input-size and --num-classes go with the NAME of an architecture")
        model = resolve_model(model)
        if Path(model).suffix == ".sqz":
            from ..fileformat import read_sqz

            contents = read_sqz(model)
            spec, facts = contents.network.spec, _sqz_facts(model, contents)
        else:
            from ..models import load_model

            spec, facts = load_model(model).spec, {}
    cost = network_cost(spec)
    if as_json:
        click.echo(json.dumps(_as_data(spec, cost) | facts))
        return
    click.echo(_layer_table(spec, cost))
    if contents is not None:
        click.echo(_file_table(facts, contents))


def _as_data(spec: ArchSpec, cost: NetworkCost) -> dict[str, Any]:
    return {
        "name": spec.name,
        "input_size": spec.input_size,
        "num_classes": spec.num_classes,
        "params": cost.params,
        "macs": cost.macs,
        "activation_bytes": cost.activation_bytes,
        "fp32_bytes": cost.fp32_bytes,
        "layers": [
            {key: value for key, value in dataclasses.asdict(layer).items() if value is not None}
            for layer in cost.layers
        ],
        "spec": spec.to_dict(),
        "alexnet": {"params": ALEXNET_PARAMS, "macs": ALEXNET_MACS, "file_bytes": ALEXNET_FILE_BYTES},
    }


def _sqz_facts(path: str, contents: SqzFile) -> dict[str, Any]:
    from ..fileformat import stream_bytes

    data = Path(path).read_bytes()
    file_bytes = len(data)
    fp32_bytes = network_cost(contents.network.spec).fp32_bytes
    weights = [params.weight for params in contents.network.convs.values()]
    nonzero = sum(int((weight != 0).sum()) for weight in weights)
    return {
        "file_bytes": file_bytes,
        "ratio_vs_fp32": fp32_bytes / file_bytes,
        "ratio_vs_alexnet": ALEXNET_FILE_BYTES / file_bytes,
        "density": nonzero / sum(weight.size for weight in weights),
        "stream_bytes": stream_bytes(data),
        "labels": list(contents.labels.names) if contents.labels else None,
        "preprocessing": contents.preprocessing.to_dict() if contents.preprocessing else None,
        "facts": dict(contents.facts),
    }


def _layer_table(spec: ArchSpec, cost: NetworkCost) -> str:
    header = ("layer", "filter/stride", "output", "s1x1", "e1x1", "e3x3", "params", "MACs", "activation bytes")
    rows: list[tuple[str, ...]] = [("input", "", f"{spec.input_size}x{spec.input_size}x3", "", "", "", "", "", "")]
    rows += [_layer_row(layer) for layer in cost.layers]
    rows.append(("total", "", "", "", "", "", f"{cost.params:,}", f"{cost.macs:,}", f"{cost.activation_bytes:,}"))
    rows.append(("AlexNet", "", "", "", "", "", f"{ALEXNET_PARAMS:,}", f"{ALEXNET_MACS:,}", ""))
    title = f"{printable(spec.name)}: {format_bytes(cost.fp32_bytes)} as float32, bypass {spec.bypass}"
    return f"{title}, {ALEXNET_FILE_BYTES / cost.fp32_bytes:.0f}x smaller than AlexNet\n\n{table(header, rows, left=2)}"


def _layer_row(layer: LayerCost) -> tuple[str, ...]:
    size = f"{layer.out_size}x{layer.out_size}x{layer.out_channels}"
    filter_ = f"{layer.kernel}x{layer.kernel}/{layer.stride}" if layer.kernel else ""
    widths = (layer.squeeze_channels, layer.expand1x1_channels, layer.expand3x3_channels)
    counts = (layer.params, layer.macs, layer.activation_bytes)
    return (layer.name, filter_, size, *(str(width or "") for width in widths), *map(format_count, counts))


def _file_table(facts: dict[str, Any], contents: SqzFile) -> str:
    ops = {op.name: op for op in contents.network.spec.convs}
    rows = []
    for name, size in facts["stream_bytes"].items():
        if name in ops:
            weight = contents.network.convs[name].weight
            density = f"{100 * (weight != 0).mean():.0f} %"
            rows.append((name, f"{ops[name].params:,}", f"{size:,}", f"{8 * size / ops[name].params:.2f}", density))
        else:
            rows.append((name, "", f"{size:,}", "", ""))
    rows.append(("total", f"{sum(op.params for op in ops.values()):,}", f"{facts['file_bytes']:,}", "", ""))
    labels = contents.labels
    names = "none" if labels is None else ", ".join(printable(name) for name in labels.names[:5])
    if labels is not None and len(labels) > 5:
        names += f" and {len(labels) - 5} more"
    return (
        f"\nFile: {facts['file_bytes']:,} bytes, {facts['ratio_vs_fp32']:.1f}x smaller than float32,"
        f" {facts['ratio_vs_alexnet']:.0f}x smaller than AlexNet\nLabels: {names}\n\n"
        + table(("part", "params", "bytes", "bits/param", "density"), rows)
    )
