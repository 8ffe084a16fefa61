"""ModelConfig: what config.json says about a Llama-shaped model, as checked data.

Fields are named as in config.json where it has such a key. Knows shapes and names of tensors; it
knows nothing of how weights are stored, and of families of models only what they ask a layer to do.
`parsing` makes one of the content of config.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparity_edge.config.activation import SILU, Activation
from sparity_edge.config.lora import LORA_A, LORA_B, Lora
from sparity_edge.config.norms import BEFORE, Norms, QkNorm
from sparity_edge.config.rope_scaling import Rope, RopeScaling
from sparity_edge.config.rotation import Rotation
from sparity_edge.config.scales import UNSCALED, Scales
from sparity_edge.config.values import MAX_CONTEXT

LAYER_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
ADAPTER = "residual_adapter"  # takes the residual stream from the basis of the layer before


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-shaped decoder; `sparity_edge.read_config` makes one of what config.json holds."""

    model_type: str  # of its family: "llama", "mistral", "qwen2" ...
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float  # as norms use it: that of config.json times `scales.epsilon`
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    rope_in_windows: Rope | None = None  # of layers with a sliding window; None: as of all layers
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    # One entry a layer: how many positions a query sees, itself included; None: all of them.
    sliding_windows: tuple[int | None, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    norms: Norms = BEFORE
    qk_norm: QkNorm | None = None  # RMSNorm of q and k, before rope
    rotary_dim: int | None = None  # of head_dim, how many numbers are rotated; None: all
    layers_without_rope: tuple[int, ...] = ()
    activation: Activation = SILU
    scales: Scales = UNSCALED
    rotation: Rotation | None = None  # folded into the weights of a rotated packed folder
    lora: Lora | None = None  # adapters beside the weights of a packed folder

    @property
    def model_context(self) -> int:
        """Positions that the model can read at most.

        Where yarn or dynamic were written into config.json to stretch the context,
        `max_position_embeddings` is left as it was.
        """
        scaling, most = self.rope_scaling, self.max_position_embeddings
        if scaling is not None and scaling.rope_type in ("yarn", "dynamic"):
            stretched = scaling.factor * scaling.original_max_position_embeddings
            most = max(most, min(int(stretched), MAX_CONTEXT))
        return most

    def rope(self, layer: int) -> Rope | None:
        """The rotary embedding of a layer; None: it has none."""
        if layer in self.layers_without_rope:
            return None
        if self.rope_in_windows is not None and self.sliding_windows[layer] is not None:
            return self.rope_in_windows
        return Rope(self.rope_theta, self.rope_scaling, self.rotary_dim or self.head_dim)

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a linear of a layer, named as in `LAYER_LINEARS`."""
        q = self.num_attention_heads * self.head_dim
        kv = self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }[name]

    def has_bias(self, name: str) -> bool:
        """Whether a linear of a layer, named as in `LAYER_LINEARS`, carries a bias."""
        if name == "self_attn.o_proj":
            return self.o_bias
        return self.qkv_bias if name.startswith("self_attn") else self.mlp_bias

    @property
    def bundles(self) -> bool:
        """Whether up and down can be stored together: there is no place for what stands by them."""
        return not self.mlp_bias and not (self.lora is not None and self.lora.on_neurons)

    @property
    def qk_norm_sizes(self) -> dict[str, int]:
        """Of the norms of q and k, by name, the numbers that each is over; none in most models."""
        if self.qk_norm is None:
            return {}
        whole = self.qk_norm == "all"
        counts = (self.num_attention_heads, self.num_key_value_heads) if whole else (1, 1)
        return dict(zip(QK_NORMS, (count * self.head_dim for count in counts), strict=True))

    @property
    def residual_adapters(self) -> bool:
        """Whether the residual stream has another basis in each layer."""
        return self.rotation is not None and self.rotation.adapters

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of a checkpoint by its name in transformers, in the order of use."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size)
        }
        for layer in range(self.num_hidden_layers):
            prefix = f"model.layers.{layer}"
            if self.residual_adapters and layer > 0:
                shapes[f"{prefix}.{ADAPTER}.weight"] = (self.hidden_size, self.hidden_size)
            for norm in filter(None, self.norms):
                shapes[f"{prefix}.{norm}.weight"] = (self.hidden_size,)
            for norm, size in self.qk_norm_sizes.items():
                shapes[f"{prefix}.{norm}.weight"] = (size,)
            for name in LAYER_LINEARS:
                shape = self.linear_shape(name)
                shapes[f"{prefix}.{name}.weight"] = shape
                if self.has_bias(name):
                    shapes[f"{prefix}.{name}.bias"] = shape[:1]
                if rank := 0 if self.lora is None else self.lora.rank(layer, name):
                    shapes[f"{prefix}.{name}.{LORA_A}.weight"] = (rank, shape[1])
                    shapes[f"{prefix}.{name}.{LORA_B}.weight"] = (shape[0], rank)
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes
