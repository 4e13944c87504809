"""Planted mutants of the kernels for sm_90, which run on such a GPU alone, each with the calls that it gets.

``tests/planting_on_gpu.py`` plants and runs them; ``docs/mutants_on_gpu.md`` has what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass

FORWARD, BACKWARD = "templates/hopper/forward.jinja", "templates/hopper/backward.jinja"
WIDE = "templates/hopper/wide_backward.jinja"


@dataclass(frozen=True)
class GpuMutant:
    """``new`` for ``old``, which stands once in ``file``; run as ``spec``, one of ``mutants.SPECS``."""

    name: str
    file: str
    old: str
    new: str
    meaning: str
    spec: str = "causal"
    head_dim: int = 128


GPU_MUTANTS = (
    GpuMutant(
        "keys_of_the_other_phase",
        FORWARD,
        "mbarrier.wait(k_ready.index(slot), (i // STAGES) & 1)",
        "mbarrier.wait(k_ready.index(slot), (i // STAGES + 1) & 1)",
        "a consumer waits for the round of keys before",
    ),
    GpuMutant(
        "keys_loaded_over_keys",
        FORWARD,
        "            mbarrier.wait(k_free.index(slot), used)\n",
        "",
        "the producer does not wait until a tile of keys is done with",
    ),
    GpuMutant(
        "edges_unmasked",
        FORWARD,
        "    if MASKED:\n{{ m.lines(v.column_mask if h.reads_by_key",
        "    if False:\n{{ m.lines(v.column_mask if h.reads_by_key",
        "the edges run without their mask",
    ),
    GpuMutant(
        "key_head_modulo",
        FORWARD,
        "h_kv = h // (heads // kv_heads)",
        "h_kv = h % kv_heads",
        "query heads read another group's keys",
    ),
    GpuMutant(
        "tile_skipped",
        FORWARD,
        "        number += taken\n",
        "        number += taken + 1\n",
        "the first tile that a program takes beyond its own is left out",
    ),
    GpuMutant(
        "lse_partly_in_base_2",
        FORWARD,
        "kept_any, row_max * 0.6931471805599453 + gl.log(row_sum)",
        "kept_any, row_max + gl.log(row_sum)",
        "the row's maximum enters the log-sum-exp in base 2",
    ),
    GpuMutant(
        "accumulator_not_rescaled",
        FORWARD,
        "        acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, acc.type.layout))[:, None]\n",
        "",
        "a larger row maximum does not shrink what was accumulated before it",
    ),
    GpuMutant(
        "dq_of_the_other_half",
        BACKWARD,
        "keys = keys.slice(HALF * 64, 64, dim=1)",
        "keys = keys.slice((1 - HALF) * 64, 64, dim=1)",
        "each warpgroup adds the other one's columns to its own part of dQ",
    ),
    GpuMutant(
        "ds_of_this_step",
        BACKWARD,
        "part = part_of_dq(d_scores.index(before), keys, HALF)",
        "part = part_of_dq(d_scores.index(now), keys, HALF)",
        "dQ is taken from where this step's dS goes, not from the last step's",
    ),
    GpuMutant(
        "seed_of_the_other_stage",
        BACKWARD,
        "dot = start_of(lse2s.index(slot)",
        "dot = start_of(lse2s.index((slot + 1) % STAGES)",
        "the scores start at other rows' log-sum-exp",
    ),
    GpuMutant(
        "dropout_scale_forgotten",
        BACKWARD,
        "d_weights * kept_scale, 0.0) - delta",
        "d_weights, 0.0) - delta",
        "dP misses 1 / (1 - p)",
        spec="dropout",
    ),
    GpuMutant(
        "delta_of_the_wrong_sign",
        BACKWARD,
        "d_weights = start_of(-deltas.index(slot)",
        "d_weights = start_of(deltas.index(slot)",
        "dP + delta",
    ),
    GpuMutant(
        "group_not_fed",
        BACKWARD,
        "    step = gl.to_tensor(0)\n    for member in range(group):",
        "    step = gl.to_tensor(0)\n    for member in range(1):",
        "the producer ends after the first query head of a group: the consumers wait for ever",
    ),
    GpuMutant(
        "passes_mixed_up",
        WIDE,
        "    if OF_KEYS:\n        acc = acc * {{ v.scale_after_dk }}",
        "    if not OF_KEYS:\n        acc = acc * {{ v.scale_after_dk }}",
        "the scale of dK is applied in dV's pass",
        head_dim=256,
    ),
    GpuMutant(
        "last_rows_twice",
        WIDE,
        "(q_tiles - 1 - tile) * 128",
        "(q_tiles - tile) * 128",
        "dQ's tiles begin one late: the first is nobody's",
        head_dim=256,
    ),
    GpuMutant(
        "wide_tile_of_the_other_phase",
        WIDE,
        "mbarrier.wait(ready.index(slot), (step // tiles.shape[0]) & 1)",
        "mbarrier.wait(ready.index(slot), (step // tiles.shape[0] + 1) & 1)",
        "a consumer of the wide backward waits for the round before",
        head_dim=256,
    ),
)
