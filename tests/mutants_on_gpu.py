"""Planted mutants of the kernels for sm_90, which run on such a GPU alone, each with the calls that it gets.

``tests/planting_on_gpu.py`` plants and runs them; ``docs/mutants_on_gpu.md`` has what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mutants import SPECS

FORWARD, BACKWARD = "templates/hopper/forward.jinja", "templates/hopper/backward.jinja"
WIDE, NEAR = "templates/hopper/wide_backward.jinja", "templates/hopper/near.jinja"
LEARNED = "templates/triton/learned.jinja"

GPU_SPECS = {
    **SPECS,
    "causal_table": "input table: float32[heads, 90] grad\n"
    "score = score + table[h, min(dist, 89)]\nmask = causal",
    "buckets": "input table: float32[heads, 8] grad\n"
    "score = score + table[h, min(int(2.0 * log(abs(dist) + 1.0)), 7)]",
    "slopes": "input slopes: float32[heads] grad\nscore = score - slopes[h] * dist\nmask = causal",
    "slopes_dropout": "input slopes: float32[heads] grad\nparam p: float = 0.3\n"
    "score = score - slopes[h] * dist\nmask = causal\ndropout = p",
}


@dataclass(frozen=True)
class GpuMutant:
    """``new`` for ``old``, which stands once in ``file``; run as ``spec``, one of GPU_SPECS."""

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
        spec="two_sided",
    ),
    GpuMutant(
        "far_tiles_run_on",
        FORWARD,
        "n = gl.where(i < distant, over(far[0] + i * BLOCK_N, far[2]), n)",
        "n = gl.where(i < distant, far[0] + i * BLOCK_N, n)",
        "the far tiles beyond the near ones are looked for among these",
        spec="clamped",
    ),
    GpuMutant(
        "near_tiles_after_the_far",
        FORWARD,
        "near[0] + (i - distant) * BLOCK_N",
        "near[0] + i * BLOCK_N",
        "the near tiles begin later by as many as are far",
        spec="clamped",
    ),
    GpuMutant(
        "near_tile_taken_for_far",
        FORWARD,
        "far, _ = apart(inner, near_lo, inner[1], BLOCK_N)",
        "far, _ = apart(inner, near_lo + BLOCK_N, inner[1], BLOCK_N)",
        "the first near tile of keys reads the number of those beyond the table",
        spec="causal_table",
    ),
    GpuMutant(
        "near_queries_taken_for_far",
        BACKWARD,
        "far, near = apart(inner, near_lo, near_hi, BLOCK_M)",
        "far, near = apart(inner, near_lo + BLOCK_M, near_hi, BLOCK_M)",
        "the first near tile of queries reads the number of those beyond the table",
        spec="clamped",
    ),
    GpuMutant(
        "listed_from_another_origin",
        NEAR,
        "near_at = Near + head * {{ near.width }}{{ near.origin }}",
        "near_at = Near + head * {{ near.width }}",
        "distance 0 is looked for where the least distance is listed",
        spec="buckets",
    ),
    GpuMutant(
        "list_one_short",
        NEAR,
        "tl.minimum(tl.maximum(pos - k, {{ near.low }}), {{ near.high }})",
        "tl.minimum(tl.maximum(pos - k, {{ near.low }}), {{ near.high }} - 1)",
        "the largest distance of a list is read at the one before",
        spec="buckets",
    ),
    GpuMutant(
        "sums_of_the_last_queries",
        LEARNED,
        "{% else %}\n            {{ r.sum }} += tl.sum(part, 1)",
        "{% else %}\n            {{ r.sum }} = tl.sum(part, 1)",
        "a key's sum for a learned number has the last tile of queries alone",
        spec="slopes",
    ),
    GpuMutant(
        "sums_without_batch",
        BACKWARD,
        "sums_at = KeySums + head.to(gl.int64)",
        "sums_at = KeySums + h.to(gl.int64)",
        "each batch leaves its sums for learned numbers where the first one's are",
        spec="slopes",
    ),
    GpuMutant(
        "dropped_weights_below_zero",
        BACKWARD,
        "            weights = tl.abs(weights)\n",
        "            pass\n",
        "what dropout takes enters a learned number's gradient with the wrong sign",
        spec="slopes_dropout",
    ),
    GpuMutant(
        "sink_of_the_wrong_sign",
        BACKWARD,
        "d_sink = -sink_weight * delta",
        "d_sink = sink_weight * delta",
        "a sink's gradient has the other sign",
        spec="sink",
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
