"""Rotary position embedding: tables of cosines and sines (Su et al., 2021).

Frequencies of the rope types longrope and dynamic depend on how long a text is, so that one model
has several tables. A KV cache remembers the `stretch` that its keys were rotated with; what a text
of another length wants is said here, and `Model` reads again what has to be. Factors of attention,
and of queries by their position, are part of the tables: they multiply what is rotated.
"""

from __future__ import annotations

import math

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.config.rope_scaling import Rope, RopeScaling

# Stretches: a length whose frequencies all positions have, or one of these.
PLAIN = 0  # as for any text within the original length
EACH_ITS_OWN = -1  # each position those of the text that ends with it (dynamic, token by token)


@np.errstate(over="ignore")  # the frequencies are 0 then
def frequencies(rope: Rope, length: int = PLAIN) -> Floats:
    """Radians a position for each pair of a head, as transformers computes them.

    Args:
        rope: base and scaling.
        length: of the text, where the scaling depends on it; PLAIN: within the original length.

    Returns:
        (dim / 2,)
    """
    scaling = rope.scaling
    base = rope.theta
    if scaling is not None and scaling.rope_type == "dynamic":
        base = float(_dynamic_bases(rope, scaling, np.array([length], np.float32))[0])
    waves: Floats = np.power(np.float32(base), _exponents(rope))
    plain = (1.0 / waves).astype(np.float32)
    if scaling is None or scaling.rope_type == "dynamic":
        return plain
    if scaling.rope_type == "linear":
        return (plain / np.float32(scaling.factor)).astype(np.float32)
    if scaling.rope_type == "llama3":
        return _llama3(plain, scaling)
    if scaling.rope_type == "yarn":
        kept = yarn_kept(rope, scaling)
        stretched = 1.0 / (np.float32(scaling.factor) * waves)
        return (stretched * (1 - kept) + plain * kept).astype(np.float32)
    long = length > scaling.original_max_position_embeddings
    factors = scaling.long_factor if long else scaling.short_factor
    return (1.0 / (np.array(factors, np.float32) * waves)).astype(np.float32)


def _exponents(rope: Rope) -> Floats:
    return np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)


def _llama3(plain: Floats, scaling: RopeScaling) -> Floats:
    """Long waves are stretched, short ones kept, and those between blended."""
    turns = scaling.original_max_position_embeddings / (2 * math.pi / plain)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = np.clip((turns - low) / (high - low), 0, 1) if high > low else turns >= low
    return ((1 - blend) * plain / scaling.factor + blend * plain).astype(np.float32)


def _gain(config: ModelConfig) -> float:
    """What q and k are both multiplied by, so that scores have the factor that the config asks for.

    Attention divides them by sqrt(head_dim) in any case.
    """
    scores = config.scales.scores
    return 1.0 if scores is None else math.sqrt(scores * math.sqrt(config.head_dim))


def yarn_kept(rope: Rope, scaling: RopeScaling) -> Floats:
    """How much of each frequency is left as it is: 1 of the fastest, 0 of the slowest."""
    length = scaling.original_max_position_embeddings
    low, high = (
        rope.dim * (math.log(length) - math.log(turns * 2 * math.pi)) / (2 * math.log(rope.theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    )
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high += 0.001 if low == high else 0  # as in the paper's code, against a division by 0
    pairs = np.arange(rope.dim // 2, dtype=np.float32)
    stretched: Floats = np.clip((pairs - np.float32(low)) / np.float32(high - low), 0, 1)
    return 1 - stretched


def _dynamic_bases(rope: Rope, scaling: RopeScaling, lengths: Floats) -> Floats:
    """The base for texts of such lengths (NTK-aware scaling), in float32 as transformers has it."""
    longest = scaling.original_max_position_embeddings
    times = scaling.factor * lengths / longest - (scaling.factor - 1)
    times = np.where(lengths > longest, np.maximum(times, 1), np.float32(1))
    with np.errstate(over="ignore"):
        return np.asarray(rope.theta * times ** (rope.dim / (rope.dim - 2)), dtype=np.float32)


def rotary_table(rope: Rope | None, head_dim: int, positions: int, stretch: int = PLAIN) -> Floats:
    """The cosines of all pairs at each position, then their sines.

    Args:
        rope: None: the table leaves every vector as it is.
        head_dim: numbers of a head; pairs that are not rotated are the last ones.
        positions: how many there are.
        stretch: which frequencies they have.

    Returns:
        (positions, head_dim)
    """
    half = head_dim // 2
    table = np.empty((positions, head_dim), dtype=np.float32)
    # In place: at 32768 positions of 128 numbers each further array would take 8 MB.
    table[:, :half], table[:, half:] = 1, 0
    if rope is None:
        return table
    cosines, sines = table[:, : rope.dim // 2], table[:, half : half + rope.dim // 2]
    at = np.arange(positions, dtype=np.float32)[:, None]
    np.multiply(at, frequencies(rope, stretch), out=sines)
    if stretch == EACH_ITS_OWN and rope.scaling is not None:
        later = slice(rope.scaling.original_max_position_embeddings, None)
        waves = _dynamic_bases(rope, rope.scaling, at[later] + 1)
        np.power(waves, _exponents(rope), out=sines[later])
        np.divide(1, sines[later], out=sines[later])
        sines[later] *= at[later]
    np.cos(sines, out=cosines)
    np.sin(sines, out=sines)
    if rope.scaling is not None and rope.scaling.attention_factor != 1:
        for part in (cosines, sines):
            part *= np.float32(rope.scaling.attention_factor)
    return table


class RopeTables:
    """The rotary tables of a model, each made when it is first asked for.

    Args:
        config: says what each layer's is.
        positions: how many they hold.
    """

    def __init__(self, config: ModelConfig, positions: int = 0) -> None:
        self.config = config
        self.positions = positions
        self._tables: dict[tuple[Rope | None, int, bool], Floats] = {}

    def cover(self, positions: int) -> None:
        """Have tables for so many positions from now on; those given out stay as they are."""
        if positions > self.positions:
            self.positions = positions
            self._tables.clear()

    def of_keys(self, layer: int, stretch: int = PLAIN) -> Floats:
        """(positions, head_dim) for the keys of a layer, see `rotary_table`."""
        return self._of(self.config.rope(layer), stretch, queries=False)

    def of_queries(self, layer: int, stretch: int = PLAIN) -> Floats:
        """(positions, head_dim) for the queries of a layer: that of its keys, or multiples of it.

        Where it is the same one, decoding rotates queries and keys in one operation.
        """
        rope = self.config.rope(layer)
        scaling = None if rope is None else rope.scaling
        if scaling is None or scaling.query_beta == 0:
            return self._of(rope, stretch, queries=False)
        original = scaling.original_max_position_embeddings
        return self._of(rope, stretch, queries=self.positions > original)

    def _of(self, rope: Rope | None, stretch: int, queries: bool) -> Floats:
        scaling = None if rope is None else rope.scaling
        by_length = scaling is not None and scaling.by_length
        key = (rope, stretch if by_length else PLAIN, queries)
        if key not in self._tables:
            for other in [each for each in self._tables if each[1] not in (PLAIN, EACH_ITS_OWN)]:
                del self._tables[other]  # of another length, which hardly comes again
            table = rotary_table(rope, self.config.head_dim, self.positions, key[1])
            if (gain := _gain(self.config)) != 1:
                table *= np.float32(gain)
            if queries and scaling is not None:
                table *= query_factors(scaling, self.positions)
            self._tables[key] = table
        return self._tables[key]

    def stretch(self, length: int, now: int = PLAIN, whole: bool = True) -> int:
        """The stretch of a text.

        Args:
            length: its positions, those to be read included.
            now: the stretch of the keys that are there.
            whole: whether what is read is a prompt; else it is appended token by token.
        """
        scaling = self.config.rope_scaling
        if scaling is None or not scaling.by_length:
            return PLAIN
        original = scaling.original_max_position_embeddings
        if length <= original:
            return PLAIN
        if scaling.rope_type == "longrope":
            return original + 1
        return length if whole or now == length else EACH_ITS_OWN


def query_factors(scaling: RopeScaling, positions: int) -> Floats:
    """What queries are multiplied by at each position, (positions, 1), as in Llama 4."""
    whole = np.arange(positions)[:, None] // scaling.original_max_position_embeddings
    factors: Floats = 1 + np.float32(scaling.query_beta) * np.log1p(whole.astype(np.float32))
    return factors
