"""Parameter counts of a configuration: the table of docs/model-family.md §6."""

from __future__ import annotations

import dataclasses

from torch import nn

from .config import Config


@dataclasses.dataclass
class Counts:
    """Parameters by row of the table; token_class, primes and multipliers are not counted."""

    embedding: int = 0
    output_head: int = 0
    mla: int = 0
    indexer: int = 0
    mhc: int = 0
    norms: int = 0
    dense_ffn: int = 0
    routed_experts: int = 0
    shared_experts: int = 0
    gates: int = 0
    engram_tables: int = 0
    engram_projections: int = 0

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(dataclasses.astuple(self))


def full_layers(config: Config) -> int:
    """Layers with an indexer of their own."""
    return sum(config.has_indexer(layer) for layer in range(config.num_hidden_layers))


def _attention(config: Config) -> int:
    hidden, heads = config.hidden_size, config.num_attention_heads
    q_rank, rank, rope = config.q_lora_rank, config.kv_lora_rank, config.qk_rope_head_dim
    nope, value = config.qk_nope_head_dim, config.v_head_dim
    query = hidden * q_rank + q_rank + q_rank * heads * (nope + rope)
    return query + hidden * (rank + rope) + rank + rank * heads * (nope + value) \
        + heads * value * hidden


def _indexer(config: Config) -> int:
    heads, dim = config.index_n_heads, config.index_head_dim
    return heads * dim * config.q_lora_rank + dim * config.hidden_size + 2 * dim \
        + heads * config.hidden_size


def _mhc(config: Config) -> int:
    n, width = config.hc_mult, config.hc_mult * config.hidden_size
    if n == 1:
        return 0
    outputs = 2 * n + n * n
    sublayer = outputs * width + outputs + 3
    return 2 * config.num_hidden_layers * sublayer + n * width + n + 1


def count(config: Config) -> Counts:
    """Counts of `config`, from its numbers alone."""
    vocab, hidden, layers = config.vocab_size, config.hidden_size, config.num_hidden_layers
    dense = min(config.first_k_dense_replace, layers)
    sparse = layers - dense
    expert = 3 * hidden * config.moe_intermediate_size
    streams, memories = config.hc_mult, len(config.engram_layer_ids)
    return Counts(
        embedding=vocab * hidden,
        output_head=0 if config.tie_word_embeddings else vocab * hidden,
        mla=layers * _attention(config),
        indexer=full_layers(config) * _indexer(config),
        mhc=_mhc(config),
        norms=(2 * layers + 1) * hidden,
        dense_ffn=dense * 3 * hidden * config.intermediate_size,
        routed_experts=sparse * config.n_routed_experts * expert,
        shared_experts=sparse * config.n_shared_experts * expert,
        gates=sparse * config.n_routed_experts * (hidden + 1),
        engram_tables=sum(config.engram_num_embeddings) * config.engram_head_dim,
        engram_projections=memories * (
            (streams + 1) * hidden * config.engram_columns * config.engram_head_dim
            + 2 * streams * hidden))


def active(config: Config) -> int:
    """Weights used per decoded token: k experts, C rows per memory, the head."""
    own = count(config)
    unused = own.routed_experts * (config.n_routed_experts - config.num_experts_per_tok) \
        // config.n_routed_experts
    rows = len(config.engram_layer_ids) * config.engram_columns * config.engram_head_dim
    embedding = 0 if config.tie_word_embeddings else own.embedding
    return own.total - unused - own.engram_tables + rows - embedding


def sparse_parameters(config: Config) -> int:
    """P_sparse: what embedding and head apart is there but not used for one token."""
    own = count(config)
    head = own.embedding if config.tie_word_embeddings else own.output_head
    once = own.embedding if config.tie_word_embeddings else own.embedding + own.output_head
    return (own.total - once) - (active(config) - head)


def engram_share(config: Config) -> float:
    """Tables as a part of P_sparse."""
    return count(config).engram_tables / sparse_parameters(config)


def kv_elements(config: Config) -> int:
    """Numbers that one token leaves in the cache."""
    own = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
    return own + full_layers(config) * config.index_head_dim


_ROW_OF = (  # part of a parameter's name → row; the first that fits
    ("embed_tokens.", "embedding"), ("lm_head.", "output_head"), (".indexer.", "indexer"),
    (".self_attn.", "mla"), ("_hc.", "mhc"), (".hc_head.", "mhc"), (".gate.", "gates"),
    (".shared_experts.", "shared_experts"), (".experts.", "routed_experts"),
    (".engram.embed.", "engram_tables"), (".engram.", "engram_projections"),
    ("norm.", "norms"), (".mlp.", "dense_ffn"),
)


def count_tensors(model: nn.Module) -> Counts:
    """Counts of the parameters a model really has."""
    counts = Counts()
    for name, parameter in model.named_parameters():
        row = next(row for part, row in _ROW_OF if part in name)
        setattr(counts, row, getattr(counts, row) + parameter.numel())
    return counts
