"""What `convert`, `verify` and `cache` do, given the understood command line.

Packing is in converters, packed folders are read in `packed`; here is what users see of both.
"""

from __future__ import annotations

import re
import shutil
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.errors import OptionError
from sparity_edge.progress import CallContext
from sparity_edge.system.atomic import one_sentence
from sparity_edge.system.folders import besides_packs, cache_root, kernel_root, kernels_kept
from sparity_edge.system.host import bytes_in
from sparity_edge.system.threads import checked_threads
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import neutral

if TYPE_CHECKING:
    from converters.pack_cache import Entry

SHOWN_BYTES = 50_000  # less would be a line of 0.0 MB; the total counts it
WHAT_IT_IS = {
    "packed": "packs that are not whole",
    "requests": "which pack a model's name leads to",
    "sources": "fetched sources",
    "kernels": "compiled kernels",
    "curves": "measured cost curves",
    "gains": "measured gains of sparsity plans",
    "prices": "measured prices of speculation",
    "calibrations": "calibrations that were interrupted",
    "chat_history": "what was typed in chats",
}


def convert(arguments: Namespace) -> None:
    """`sparity-edge convert`: a source becomes a packed folder."""
    from converters.pack import convert as pack
    from converters.pack_options import PackOptions
    from converters.rotate import rotated
    from converters.store import open_any

    if arguments.text and arguments.rotate is None:
        raise OptionError("--text is what --rotate makes bases of; give --rotate too.")
    if arguments.out == "":
        raise OptionError("OUT is empty; name a folder, or leave it out.")
    layout = arguments.layout or ("mixed" if arguments.calibrate else None)
    options = PackOptions(arguments.dtype, arguments.group, layout)
    screen = side_screen()
    with progress_bars(arguments, screen) as bars:
        source = open_any(arguments.source, CallContext(arguments.offline, bars, bars.notify))
        try:
            if arguments.rotate is not None:
                source = rotated(
                    source, arguments.source, arguments.rotate, texts=arguments.text,
                    threads=checked_threads(None),
                    context=CallContext(arguments.offline, bars, bars.notify),
                )  # fmt: skip
            out = Path(arguments.out or _default_out(arguments.source, arguments.dtype))
            path = pack(
                source, out, options, force=arguments.force, progress=bars, notify=bars.notify
            )
        finally:
            source.close()
        if arguments.calibrate:
            from converters.calibrate import calibrate
            from converters.ready import TOKENS

            calibrate(str(path), tokens=TOKENS, progress=bars)
    print(neutral(str(path)))


def verify(arguments: Namespace) -> None:
    """`sparity-edge verify`: whether every file is as the manifest says."""
    from sparity_edge.model.opening import verify_packed

    with progress_bars(arguments, side_screen()) as bars:
        files = verify_packed(arguments.folder, bars)
    if arguments.json:
        print_json({"folder": arguments.folder, "files": len(files), "bytes": sum(files.values())})
        return
    print(neutral(f"{arguments.folder}: all files are as the manifest says."))


def cache_list(arguments: Namespace) -> None:
    """`sparity-edge cache list`: one line for each pack, and for all else that the folder holds."""
    from converters import pack_cache

    entries = pack_cache.entries()
    packed = sum(entry.nbytes for entry in entries)
    others, kernels = _others(packed), _kernels_elsewhere()
    total = packed + sum(size for _, size in others)
    if arguments.json:
        packs = [_pack_facts(entry) for entry in entries]
        facts: dict[str, Any] = {"folder": str(cache_root()), "bytes": total, "packs": packs}
        facts["others"] = [{"path": str(path), "bytes": size} for path, size in others]
        facts["kernels_elsewhere_bytes"] = kernels
        print_json(facts)
        return
    for entry in entries:
        options = " ".join(str(value) for value in entry.options.values() if value is not None)
        used = time.strftime("%Y-%m-%d", time.localtime(entry.last_used))
        size = f"{entry.nbytes / 1e6:10.1f} MB"
        print(neutral(f"{entry.key[:12]}  {size}  {used}  {entry.name}  ({options})"))
    for path, nbytes in others:
        if nbytes >= SHOWN_BYTES:
            what = WHAT_IT_IS.get(path.name, path.name)
            print(neutral(f"{'':12}  {nbytes / 1e6:10.1f} MB  {'':10}  {what}"))
    sizes = f"{packed / 1e6:.1f} MB; {total / 1e6:.1f} MB in all"
    print(neutral(f"{len(entries)} packed, {sizes}, in {cache_root()}"))
    if kernels:
        print(neutral(f"Compiled kernels: {kernels / 1e6:.1f} MB, in {kernel_root()}"))


def _others(packed: int) -> list[tuple[Path, int]]:
    """What the folder holds besides `packed` bytes of whole packs: paths, and what they take."""
    folder = cache_root()
    sizes = {each: bytes_in(each) for each in sorted(folder.iterdir())} if folder.is_dir() else {}
    if (packs := folder / "packed") in sizes:
        sizes[packs] = max(0, sizes[packs] - packed)
    return [(path, size) for path, size in sizes.items() if size]


def _kernels_elsewhere() -> int:
    """Bytes of compiled kernels that do not lie in the folder of the pack cache."""
    if kernel_root().absolute().is_relative_to(cache_root().absolute()):
        return 0
    return sum(bytes_in(each) for each in kernels_kept())


def cache_clear(arguments: Namespace) -> None:
    """`sparity-edge cache clear`: remove packs, or everything, and say how much that freed."""
    from converters import pack_cache

    if arguments.all and arguments.name:
        raise OptionError("--all and one pack were both given; give one of them.")
    removed = pack_cache.clear(arguments.name)
    freed = sum(entry.nbytes for entry in removed)
    print(f"{len(removed)} removed, {freed / 1e6:.1f} MB freed.")
    if arguments.name is None and (staying := pack_cache.entries()):
        print(f"{len(staying)} in use by processes that run stay.")
    count, freed = pack_cache.clear_leftovers()
    if count:
        print(f"{count} left behind by interrupted runs removed too, {freed / 1e6:.1f} MB freed.")
    if arguments.all:
        print(f"All else is removed too, {_clear_besides_packs() / 1e6:.1f} MB freed.")


def _clear_besides_packs() -> int:
    """Remove sources, history and kernels; gives the bytes they took."""
    freed = 0
    for path in besides_packs():
        freed += bytes_in(path)
        with one_sentence(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return freed


def _pack_facts(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "name": entry.name,
        "options": entry.options,
        "bytes": entry.nbytes,
        "last_used_unix_seconds": round(entry.last_used),
        "path": str(entry.path),
    }


def _default_out(source: str, dtype: str | None) -> str:
    """./NAME-DTYPE, NAME being the last part of a path, a Hub id (with its tag) or an alias."""
    name = Path(re.sub("@[^:]*", "", source)).resolve().name if source else ""
    name = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE).replace(":", "-")
    name = re.sub(r"[^\w.-]", "_", name)
    return f"{name.lstrip('.') or 'model'}-{dtype or 'packed'}"
