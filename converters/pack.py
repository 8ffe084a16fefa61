"""convert: a source becomes a packed folder.

Decides for each matrix its number format, its orientation and whether up and down are bundled, and
streams it through `chunks` to the writer. Plans of a packed folder go along. Knows nothing of file
formats: sources read, the writer writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.chunks import chunks_of, packed_in_order
from converters.numbers.quantize import ZERO_POINTS
from converters.pack_options import PackOptions
from sparity_edge.config.lora import LORA_A, LORA_B
from sparity_edge.config.model_config import ADAPTER, LAYER_LINEARS
from sparity_edge.errors import OptionError
from sparity_edge.model.opening import version_of
from sparity_edge.packed.bundle import BundleLayout, bundle_of, halves_of
from sparity_edge.packed.layout import BY_THEMSELVES, K_QUANT_GROUPS, KEPT_GROUPS, Layout
from sparity_edge.packed.shards import TensorSpec, spec_nbytes
from sparity_edge.packed.writer import PackedWriter
from sparity_edge.progress import Progress, silent, unheard
from sparity_edge.system.use_marks import UseMark
from sparity_edge.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from converters.sources.source import Source

# Inputs, in both orientations. Groups of outputs would let scales of input-major rows be skipped,
# but cost two to four times the KL (bench/quality_dense.py --axes), and rows cannot be summed as
# integers before they are scaled.
DEFAULT_GROUP = 32
MAX_WORKERS = 4  # more only wait for the one thread that writes
# Of residual adapters, but where all is f32: what later layers read goes through every one of them.
ADAPTER_DTYPE = "bf16"
_LORA = (f".{LORA_A}.weight", f".{LORA_B}.weight")  # are kept in the floats that they come in
BUNDLED = ("ffn", "neurons", "mixed")  # layouts in which up and down are stored together
_INPUT_MAJOR = {
    "dense": (),
    "ffn": ("mlp.down_proj",),
    "neurons": ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"),
    "mixed": tuple(name for name in LAYER_LINEARS if name != "mlp.up_proj"),
    "input": LAYER_LINEARS,
}


def choose_layout(
    name: str,
    shape: tuple[int, int],
    native: tuple[str, int, bool] | None,
    options: PackOptions,
) -> Layout:
    """How the matrix `name` is stored.

    Args:
        name: its checkpoint name.
        shape: (outputs, inputs).
        native: (dtype, group, minimum) of the numbers in the source, None for plain floats.
        options: what was asked for.
    """
    if native and name.endswith(_LORA):
        return Layout(native[0], "output", shape)
    if ADAPTER in name:
        asked = options.dtype or (native[0] if native else None)
        return Layout("f32" if asked == "f32" else ADAPTER_DTYPE, "output", shape)
    in_layer = name.startswith("model.layers.")
    linear = name.removesuffix(".weight").split(".", 3)[-1]
    input_major = in_layer and linear in _INPUT_MAJOR[options.layout or "dense"]
    bundled = in_layer and linear == "mlp.up_proj" and options.layout in BUNDLED
    if native and native[0] == ZERO_POINTS:
        native = _without_zero_points(native[1], options.dtype, input_major or bundled)
    elif native and options.dtype is not None:
        native = _without_kept(native)
    elif native and native[0] in BY_THEMSELVES and (input_major or bundled):
        native = _SIX_BITS if native[0] == "int3k" else _without_kept(native)
    dtype, group, minimum = _choose_numbers(in_layer, native, options)
    return Layout(dtype, "input" if input_major else "output", shape, group, minimum)


def convert(
    source: Source,
    out: str | os.PathLike[str],
    options: PackOptions,
    *,
    force: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = unheard,
) -> Path:
    """Write `source` as a packed folder.

    Args:
        source: an open source; it stays open.
        out: the folder to be made. It appears at the end, complete.
        options: number format and layout.
        force: replace an existing packed folder (or empty folder) at `out`.
        progress: told of packed bytes.
        notify: told which numbers of the source the layout cannot hold.

    Returns:
        The path of the folder.

    Raises:
        OptionError: the layout bundles up and down, and the model has biases there.
        FormatError: `out` exists or cannot be written.
        SourceError: the source is damaged, its tokenizer is another model's, or a weight does not
            fit the number format.
    """
    options = options.for_model(source.config)
    tensors = _plan(source, options)
    if options.dtype is None and (note := _what_is_rounded(source, tensors)):
        notify(f"{source.label}: layout {options.layout} {note}; layout dense keeps them.")
    Tokenizer.from_files(source.tokenizer_files).demand_rows(source.config.vocab_size)
    total = sum(spec_nbytes(spec) for spec in tensors.values())
    done = 0
    writer = PackedWriter(
        Path(out), tensors, source=source.label, options=asdict(options), notes=source.notes,
        card=source.card, version=version_of(source.config), force=force,
    )  # fmt: skip
    workers = max(1, min(MAX_WORKERS, os.cpu_count() or 1))
    with UseMark(source.files), writer, ThreadPoolExecutor(workers) as pool:
        for file_name, content in _small_files(source).items():
            writer.add_file(file_name, content)
        for path, sha256 in _plans(source, tensors).items():
            writer.copy_file(path, sha256)
        chunks = (each for name, spec in writer.tensors.items() for each in chunks_of(name, spec))
        for chunk, data in packed_in_order(source, pool, workers, chunks):
            if data is not None:
                writer.write(chunk.name, data)
            done += chunk.nbytes
            progress("pack", done, total)
    return Path(out)


def _without_zero_points(group: int, asked: str | None, by_inputs: bool) -> tuple[str, int, bool]:
    """What numbers with zero points become: integers that hold the very same, where not asked."""
    if asked == "int4":
        return "int4", group, True  # minima are rounded
    return ("int8", group, False) if asked or by_inputs else ("int5", 32, False)


_SIX_BITS = ("int6k", 16, False)  # what int3k is exactly in


def _without_kept(native: tuple[str, int, bool]) -> tuple[str, int, bool] | None:
    """What formats that are only kept are taken for where they cannot be; None: for floats."""
    if native[0] not in (*K_QUANT_GROUPS, *KEPT_GROUPS):
        return native
    return {
        ("int4k", 32, True): ("int4", 32, True),
        ("int5", 32, False): ("int8", 32, False),  # exact
        ("iq4", 32, False): ("int8", 32, False),  # exact
        ("iq4k", 32, False): ("int8", 32, False),  # scales are rounded
    }.get(native)


# Formats that hold the very numbers of another.
_EXACT = {("int5", "int8"), ("iq4", "int8"), ("int3k", "int6k")}


def _what_is_rounded(source: Source, tensors: Mapping[str, TensorSpec]) -> str:
    """What a layout does to numbers that it has no place for; nothing where it has one for all."""
    rounded = set()
    for name, layout in matrices(tensors):
        dtype, _, minimum = source.native(name) or (layout.dtype, 0, False)
        exact = (dtype, layout.dtype) in _EXACT and not minimum
        if dtype in BY_THEMSELVES and dtype != layout.dtype and not exact:
            linear = name.removesuffix(".weight").rsplit(".", 1)[-1]
            rounded.add(f"{linear} ({dtype} to {layout.dtype})")
    return f"rounds numbers anew: {', '.join(sorted(rounded))}" if rounded else ""


def _choose_numbers(
    in_layer: bool, native: tuple[str, int, bool] | None, options: PackOptions
) -> tuple[str, int, bool]:
    if options.dtype is None:
        return native or ("int8", options.group or DEFAULT_GROUP, False)
    if options.dtype in ("f32", "bf16"):
        return options.dtype, 0, False
    # Embedding and head are too sensitive to be rounded to four bits; some come with four already.
    kept = {options.dtype} if in_layer else {options.dtype, "int8"}
    if native and native[0] in kept and options.group in (None, native[1]):
        return native
    dtype = options.dtype if in_layer else "int8"
    return dtype, options.group or DEFAULT_GROUP, dtype == "int4"


def _plan(source: Source, options: PackOptions) -> dict[str, TensorSpec]:
    model = source.config
    if not model.bundles and options.layout in BUNDLED:
        why = "biases rule" if model.mlp_bias else "LoRA adapter rules"
        raise OptionError(
            f"layout={options.layout!r} stores up and down together, which this model's {why} "
            "out; use dense or input."
        )
    tensors: dict[str, TensorSpec] = {}
    for name, shape in model.tensor_shapes().items():
        if len(shape) == 2:
            tensors[name] = choose_layout(name, (shape[0], shape[1]), source.native(name), options)
        else:
            tensors[name] = shape
    return _bundled(tensors) if options.layout in BUNDLED else tensors


def _plans(source: Source, tensors: dict[str, TensorSpec]) -> dict[Path, str]:
    """Plan files that go along, and their SHA-256: those of a packed folder of the same numbers."""
    from converters.sources.packed import PackedSource

    if not isinstance(source, PackedSource):
        return {}
    same = all(
        source.native(name) == (layout.dtype, layout.group, layout.minimum)
        for name, layout in matrices(tensors)
    )
    return source.plans if same else {}


def matrices(tensors: Mapping[str, TensorSpec]) -> Iterator[tuple[str, Layout]]:
    """Every matrix by its name in a checkpoint, whether it stands by itself or in a bundle."""
    for name, spec in tensors.items():
        if isinstance(spec, Layout):
            yield name, spec
        elif isinstance(spec, BundleLayout):
            yield from zip(halves_of(name), (spec.up, spec.down), strict=True)


def _bundled(tensors: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The tensors with up and down of each layer as one bundle, in the place of up."""
    result: dict[str, TensorSpec] = {}
    for name, spec in tensors.items():
        bundle = bundle_of(name)
        if bundle is None:
            result[name] = spec
        elif bundle not in result:
            up, down = (tensors[half] for half in halves_of(bundle))
            assert isinstance(up, Layout)
            assert isinstance(down, Layout)
            result[bundle] = BundleLayout(up, down)
    return result


def _small_files(source: Source) -> dict[str, bytes]:
    files = {"config.json": _json(source.config_json)}
    if source.generation_config:
        files["generation_config.json"] = _json(source.generation_config)
    return {**files, **source.tokenizer_files}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="replace")
