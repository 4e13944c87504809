"""Planted mutants: small errors, as people make them, each with the check that must catch it.

``tests/planting.py`` plants one in a copy of the package and runs its check; ``docs/mutants.md`` has what
came of it.
"""

from __future__ import annotations

from dataclasses import dataclass

FORWARD, BACKWARD = "templates/triton/forward.jinja", "templates/triton/backward.jinja"
FRAGMENTS, LAUNCH = "templates/triton/fragments.jinja", "templates/triton/launch.jinja"
PRODUCTS = "templates/triton/products.jinja"
LEARNED, MACROS = "templates/triton/learned.jinja", "templates/triton/macros.jinja"

#: What property tests run: a spec by its name. Small windows and caps, so that short calls meet them.
SPECS = {
    "full": "",
    "causal": "mask = causal",
    "window": "mask = sliding_window(20)",
    "wide_window": "mask = sliding_window(47)",
    "two_ranges": "mask = causal and (dist < 20 or k < 4)",
    "documents": "input doc: int32[k_len] sorted\nmask = doc[pos] == doc[k]",
    "two_sided": "mask = abs(dist) <= 9",
    "softcap": "param cap: float = 2.0\nscore = softcap(score, cap)\nmask = causal",
    "dropout": "param p: float = 0.3\nmask = causal\ndropout = p",
    "sink": "input sinks: float32[heads] grad\nmask = sliding_window(20)\nsink = sinks[h]",
    "lowered": "score = score - 200.0",
    "gain": "param c: float = 0.7\nscore = score * c",
    "negated": "input t: float32[heads]\nscore = score * t[h]",
    "quotient": "score = score / (1.0 + 0.1 * abs(score))",
    "thirds": "score = score + 0.3 * (dist // 3)",
    "scale_of_head": "input s: float32[heads] grad\nscale = 0.2 + 0.1 * s[h]",
    "key_head_bias": "input bias: float32[kv_heads, q_len] grad\nscore = score + bias[h_kv, q]",
    "subtracted": "input bias: float32[heads, q_len, k_len] grad\nscore = score - bias[h, q, k]",
    "dense": "input bias: float32[batch, heads, q_len, k_len] grad\nscore = score + bias[b, h, q, k]",
    "shared_key": "input a: float16[batch, heads, q_len, 8] grad\ninput c: float16[batch, k_len, 8] grad\n"
    "score = score + 0.4 * dot(a[b, h, q], c[b, k])",
    "key_of_head": "input a: float16[heads, q_len, 8] grad\ninput c: float16[batch, heads, k_len, 8] grad\n"
    "score = score - 0.4 * dot(a[h, q], c[b, h, k])",
    "row_of_key_head": "input a: float16[kv_heads, q_len, 8] grad\ninput c: float16[kv_heads, k_len, 8]\n"
    "score = score + 0.4 * dot(a[h_kv, q], c[h_kv, k])",
    "bent_product": "input a: float16[batch, heads, q_len, 8] grad\ninput c: float16[batch, k_len, 8] grad\n"
    "score = score + tanh(0.4 * dot(a[b, h, q], c[b, k]))",
    "by_distance": "input table: float32[heads, 8] grad\nscore = score + table[h, min(abs(dist), 8)]",
}


@dataclass(frozen=True)
class Mutant:
    """``new`` for ``old``, which stands once in ``file``.

    ``caught_by`` is the name of one of SPECS, which property tests run, or the id of a test.
    """

    name: str
    file: str
    old: str
    new: str
    meaning: str
    caught_by: str


MUTANTS = (
    # The forward kernel.
    Mutant(
        "accumulator_not_rescaled",
        FORWARD,
        "BLOCK_N, acc.shape[1], MASKED, TMA)\n        acc = acc * rescale[:, None]\n",
        "BLOCK_N, acc.shape[1], MASKED, TMA)\n",
        "a larger row maximum does not shrink what was accumulated before it",
        "full",
    ),
    Mutant(
        "row_sum_not_rescaled",
        FORWARD,
        "row_sum = row_sum * rescale + tl.sum(weights, 1)",
        "row_sum = row_sum + tl.sum(weights, 1)",
        "a larger row maximum does not shrink the running sum",
        "full",
    ),
    Mutant(
        "accumulator_rescaled_twice",
        FORWARD,
        "values = load_tile(values_of, last, V_DIM, BLOCK_N, BLOCK_DV, True, TMA)\n"
        "        acc = acc * rescale[",
        "values = load_tile(values_of, last, V_DIM, BLOCK_N, BLOCK_DV, True, TMA)\n"
        "        acc = acc * (rescale * rescale)[",
        "the last rescale is applied twice",
        "full",
    ),
    Mutant(
        "row_maximum_from_zero",
        FORWARD,
        'tl.full([BLOCK_M], float("-inf"), tl.float32)',
        "tl.zeros([BLOCK_M], tl.float32)",
        "the running maximum starts at 0: rows of very negative scores underflow",
        "lowered",
    ),
    Mutant(
        "empty_row_unguarded",
        FORWARD,
        'reference = tl.where(new_max == float("-inf"), 0.0, new_max)',
        "reference = new_max",
        "a row that has kept nothing yet computes -inf - -inf",
        "window",
    ),
    Mutant(
        "last_product_from_the_next_tile",
        FORWARD,
        "final = (hi - 1) // BLOCK_N * BLOCK_N",
        "final = hi // BLOCK_N * BLOCK_N",
        "where the keys fill their tiles, the last weights meet the values of a tile beyond",
        "full",
    ),
    Mutant(
        "mask_before_softcap",
        FORWARD,
        'logit = tl.where({{ v.keep_keys }}, logit, float("-inf"))',
        'dot = tl.where({{ v.keep_keys }}, dot, float("-inf"))\n            logit = {{ v.logits.call }}',
        "masked scores pass through the softcap, which makes them finite",
        "softcap",
    ),
    Mutant(
        "dropout_before_the_sum",
        FORWARD,
        """        row_sum = row_sum * rescale + tl.sum(weights, 1)
        row_max = new_max
{% if v.has_dropout %}
        kept = is_kept(q_first, n, head, seed, threshold, queries.shape[0], BLOCK_N)
        weights = tl.where(kept, weights, 0.0)
{% endif %}
""",
        """{% if v.has_dropout %}
        kept = is_kept(q_first, n, head, seed, threshold, queries.shape[0], BLOCK_N)
        weights = tl.where(kept, weights, 0.0)
{% endif %}
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        row_max = new_max
""",
        "the softmax is normalised by what dropout kept",
        "dropout",
    ),
    Mutant(
        "output_not_scaled_by_dropout",
        FORWARD,
        '{{ "kept_scale" if v.has_dropout else "1.0" }}',
        "1.0",
        "what dropout kept is not divided by 1 - p",
        "dropout",
    ),
    Mutant(
        "lse_in_base_2",
        FORWARD,
        "row_max * 0.6931471805599453 + tl.log(row_sum)",
        "row_max + tl.log2(row_sum)",
        "the log-sum-exp is returned in base 2",
        "full",
    ),
    Mutant(
        "sink_not_in_the_sum",
        FORWARD,
        'tl.where(sink == float("-inf"), 0.0, 1.0),',
        "tl.zeros([BLOCK_M], tl.float32),",
        "the sink moves the maximum and stays out of the denominator",
        "sink",
    ),
    Mutant(
        "head_map_modulo",
        FORWARD,
        "h_kv = h // (heads // kv_heads)",
        "h_kv = h % kv_heads",
        "query heads read another group's keys",
        "full",
    ),
    Mutant(
        "top_left_alignment",
        FORWARD,
        "pos = q + (k_len - q_len)",
        "pos = q",
        "the forward aligns the queries with the first keys",
        "causal",
    ),
    # What the kernels share.
    Mutant(
        "padded_columns_read",
        FRAGMENTS,
        "return tl.load(place, mask=column < WIDTH, other=0.0)",
        "return tl.load(place)",
        "whole tiles read beyond a head dimension that is no power of two",
        "full",
    ),
    Mutant(
        "dropout_transposed",
        FRAGMENTS,
        "tl.philox(seed, row, column,",
        "tl.philox(seed, column, row,",
        "the dropout bits of (q, k) are those of (k, q)",
        "dropout",
    ),
    Mutant(
        "floor_division_truncates",
        FRAGMENTS,
        "(x - remainder) // divisor - tl.where((remainder != 0) & ((remainder < 0) != (y < 0)), 1, 0)",
        "(x - remainder) // divisor",
        "negative numbers divide toward zero",
        "thirds",
    ),
    Mutant(
        "rest_of_the_lse_forgotten",
        MACROS,
        "        if EXACT:\n            exponent -= rest\n",
        "",
        "float32's backward subtracts the row's maximum and not its sum",
        "full",
    ),
    # The backward kernels.
    Mutant(
        "lse_gradient_of_the_wrong_sign",
        BACKWARD,
        "delta -= tl.load(DLse",
        "delta += tl.load(DLse",
        "the gradient through the log-sum-exp is negated",
        "full",
    ),
    Mutant(
        "lse_gradient_forgotten",
        LAUNCH,
        "HAS_DLSE=d_lse is not None",
        "HAS_DLSE=False",
        "no gradient flows through the log-sum-exp",
        "full",
    ),
    Mutant(
        "backward_lse_in_base_e",
        BACKWARD,
        'other=float("-inf")) * 1.4426950408889634',
        'other=float("-inf"))',
        "log2(e) is forgotten where the 16-bit backward reads the log-sum-exp",
        "full",
    ),
    Mutant(
        "empty_rows_have_weight",
        BACKWARD,
        'tl.where(lse2 == float("-inf"), float("inf"), lse2)',
        "lse2",
        "the backward weighs rows that kept nothing with 2**(-inf - -inf)",
        "window",
    ),
    Mutant(
        "delta_of_the_wrong_sign",
        BACKWARD,
        "(d_weights - delta)\n{{ p.sum_columns(v) }}",
        "(d_weights + delta)\n{{ p.sum_columns(v) }}",
        "dK adds delta",
        "full",
    ),
    Mutant(
        "group_not_summed",
        BACKWARD,
        "for member in range(group):",
        "for member in range(1):",
        "dK and dV take only the first query head of a group",
        "full",
    ),
    Mutant(
        "dv_ignores_dropout",
        BACKWARD,
        "dv = tl.dot(dropped.to(d_out.dtype)",
        "dv = tl.dot(weights.to(d_out.dtype)",
        "dV counts the weights that dropout dropped",
        "dropout",
    ),
    Mutant(
        "dv_not_scaled_by_dropout",
        BACKWARD,
        "dv = dv * kept_scale",
        "dv = dv",
        "dV misses 1 / (1 - p)",
        "dropout",
    ),
    Mutant(
        "interior_skipped_a_tile_late",
        FRAGMENTS,
        "step >= gaps[n][0]",
        "step > gaps[n][0]",
        "a masked loop visits the first whole tile again, and misses an edge",
        "wide_window",
    ),
    Mutant(
        "dq_masks_only_the_end",
        BACKWARD,
        "logit = tl.where({{ v.keep_keys }}, logit",
        "logit = tl.where(column < k_len, logit",
        "dQ's edges mask the ragged end alone",
        "causal",
    ),
    Mutant(
        "dq_without_its_scale",
        BACKWARD,
        "    dq = dq * {{ v.scale_after }}\n",
        "    dq = dq\n",
        "dQ misses the factor 1 / sqrt(head_dim)",
        "full",
    ),
    Mutant(
        "dk_without_its_heads_scale",
        BACKWARD,
        "        d_score = d_score * scale\n",
        "        d_score = d_score\n",
        "dK misses a scale that each query head has for itself",
        "scale_of_head",
    ),
    # Learned inputs.
    Mutant(
        "sink_gradient_of_the_wrong_sign",
        LEARNED,
        "d_sink = -sink_weight * delta",
        "d_sink = sink_weight * delta",
        "the sink's gradient is negated",
        "sink",
    ),
    Mutant(
        "key_heads_grouped_by_stride",
        LAUNCH,
        "sums.unflatten(1, (kv_heads, -1)).sum(2)",
        "sums.unflatten(1, (-1, kv_heads)).sum(1)",
        "a learned input of the key heads sums over the wrong dimension",
        "key_head_bias",
    ),
    Mutant(
        "shared_places_overwritten",
        LAUNCH,
        "{{ x.name }}.dtype if own_places else torch.int64",
        "{{ x.name }}.dtype",
        "the scores that read one element of a broadcast input overwrite each other's gradients",
        "dense",
    ),
    Mutant(
        "broadcast_dimension_strides",
        LAUNCH,
        "strides = [0 if have == 1 and want != 1 else s for s, have, want in both]",
        "strides = [s for s, have, want in both]",
        "a dimension of 1 that broadcasts keeps its stride",
        "dense",
    ),
    Mutant(
        "last_dimension_taken_as_dense",
        LAUNCH,
        "x.stride(3) if x.shape[3] > 1 else 1)",
        "1)",
        "the head dimension is read as if its elements were neighbours",
        "full",
    ),
    Mutant(
        "read_once_though_batches_share",
        "attngen/plan/learned.py",
        '{"b", "h", "q", "k"} <= set(same)',
        '{"h", "q", "k"} <= set(same)',
        "a bias that all batches read is stored by each of them",
        "subtracted",
    ),
    Mutant(
        "gradient_through_the_scale_forgotten",
        "attngen/plan/learned.py",
        "total = direct if by_scale[node] is _ZERO else simple(Op.ADD, direct, through_scale)",
        "total = direct",
        "a learned scale gets no gradient",
        "scale_of_head",
    ),
    Mutant(
        "minus_forgotten_in_a_part",
        "attngen/emit/learned.py",
        'return gradient if derivative.value == 1.0 else f"-{gradient}"',
        "return gradient",
        "a bias that is subtracted has the gradient of one that is added",
        "subtracted",
    ),
    # The emitter, the plan and the analyses.
    Mutant(
        "one_key_beyond_the_end",
        "attngen/emit/maths.py",
        'keep_keys=" & ".join(["(column < k_len)", *kept])',
        'keep_keys=" & ".join(["(column <= k_len)", *kept])',
        "a ragged tile keeps one key too many",
        "full",
    ),
    Mutant(
        "gain_forgotten",
        "attngen/emit/maths.py",
        'return f"weights * {scope.uniform(plan.logits.derivative)}"',
        'return ""',
        "the gradient misses a factor of the score that is the same everywhere",
        "gain",
    ),
    Mutant(
        "left_edge_rounded_down",
        FRAGMENTS,
        "full_lo = tl.maximum(tl.cdiv(full_lo, BLOCK) * BLOCK, lo)",
        "full_lo = tl.maximum(full_lo // BLOCK * BLOCK, lo)",
        "the loop without a mask begins a tile early",
        "wide_window",
    ),
    Mutant(
        "right_edge_rounded_up",
        "attngen/emit/ranges.py",
        'end = f"{self._clipped(only.certain.hi, self._length)} // BLOCK * BLOCK"',
        'end = f"tl.cdiv({self._clipped(only.certain.hi, self._length)}, BLOCK) * BLOCK"',
        "the loop without a mask ends a tile late",
        "causal",
    ),
    Mutant(
        "clamp_one_element_late",
        "attngen/plan/arithmetic.py",
        "return self.intervals[index].hi <= dim - 1",
        "return self.intervals[index].hi <= dim",
        "an index one past the end is taken as proven in range",
        "by_distance",
    ),
    Mutant(
        "clamp_from_one",
        "attngen/emit/triton_expr.py",
        'text = call("tl.maximum", text, Text("0"))',
        'text = call("tl.maximum", text, Text("1"))',
        "negative indices read the second element",
        "tests/test_kernel_language.py::test_an_index_outside_reads_the_nearest_element[dist]",
    ),
    Mutant(
        "scale_of_the_values_dim",
        "attngen/emit/host_expr.py",
        '"head_dim": "q.shape[3]"',
        '"head_dim": "v.shape[3]"',
        "the default scale is that of v_dim",
        "full",
    ),
    Mutant(
        "log2_e_forgotten",
        "attngen/plan/base2.py",
        "spread[node] = (simple(Op.MUL, LOG2_E, factor), rest)",
        "spread[node] = (factor, rest)",
        "the scores are taken as powers of 2",
        "full",
    ),
    Mutant(
        "negative_factor_leaves_the_maximum",
        "attngen/plan/base2.py",
        "    if not is_positive(intervals(true_factor, dtypes=dtypes)[true_factor]):\n"
        "        factor, tile = ONE, simple(Op.MUL, tile, factor)\n",
        "",
        "the row maximum is taken before a factor that may be negative",
        "negated",
    ),
    Mutant(
        "sink_in_base_e",
        "attngen/plan/plan.py",
        "simple(Op.MUL, LOG2_E, self.ir.sink)",
        "self.ir.sink",
        "log2(e) is forgotten on the sink",
        "sink",
    ),
    Mutant(
        "left_edge_has_no_loop",
        "attngen/plan/loops.py",
        "return len(self.ranges) > 1 or (first is not None and first.lo is not None)",
        "return len(self.ranges) > 1",
        "the left edge of a window runs without its mask",
        "wide_window",
    ),
    Mutant(
        "second_range_begins_where_it_would_alone",
        "attngen/emit/ranges.py",
        'lines.append(f"lo_{n} = tl.maximum({start}, hi_{n - 1})")',
        'lines.append(f"lo_{n} = {start}")',
        "where two ranges of keys meet, a tile is visited twice",
        "two_ranges",
    ),
    Mutant(
        "owed_values_before_a_gap",
        FORWARD,
        "owed = tl.where(step > lo, over(step - BLOCK_N, gaps), last)",
        "owed = tl.where(step > lo, n - BLOCK_N, last)",
        "behind a gap, the last weights meet the values of a tile inside it",
        "two_ranges",
    ),
    Mutant(
        "search_ends_at_the_first_alike",
        FRAGMENTS,
        "short = entry <= value if ABOVE else entry < value",
        "short = entry < value",
        "a document's keys are sought up to where it begins",
        "documents",
    ),
    Mutant(
        "derivative_of_tanh_not_squared",
        "attngen/analysis/derivative.py",
        "_sub(_ONE, _mul(node, node))",
        "_sub(_ONE, node)",
        "the derivative of tanh is 1 - tanh",
        "softcap",
    ),
    # Products of rows.
    Mutant(
        "factor_not_multiplied_by_its_number",
        PRODUCTS,
        "{{ p.rows.gradient }} = {{ p.rows.gradient }} * {{ p.number }}",
        "{{ p.rows.gradient }} = {{ p.rows.gradient }}",
        "the factor before a product of rows does not reach the queries' side",
        "shared_key",
    ),
    Mutant(
        "key_side_not_multiplied_by_its_number",
        PRODUCTS,
        "{{ p.columns.gradient }} = {{ p.columns.gradient }} * {{ p.number }}",
        "{{ p.columns.gradient }} = {{ p.columns.gradient }}",
        "the factor before a product of rows does not reach the keys' side",
        "shared_key",
    ),
    Mutant(
        "key_side_of_the_first_head",
        PRODUCTS,
        '{{ "h" if by_head else "h_kv" }}, k_len',
        '{{ "h_kv * group" if by_head else "h_kv" }}, k_len',
        "the query heads of one key head overwrite each other's gradient of a row of the key",
        "key_of_head",
    ),
    Mutant(
        "rows_summed_over_the_wrong_heads",
        PRODUCTS,
        "rows = rows.unflatten(1, (kv_heads, -1)).sum(2)",
        "rows = rows.unflatten(1, (-1, kv_heads)).sum(1)",
        "the gradient of a key head's row is gathered from every kv_heads-th query head",
        "row_of_key_head",
    ),
    Mutant(
        "infinite_derivative_of_a_product",
        "attngen/emit/products.py",
        'return f"tl.where(weights > 0.0, weights * {by[p.node]}, 0.0) * (d_weights - delta)"',
        'return f"weights * (d_weights - delta)"',
        "a product inside a tanh has the gradient of one outside",
        "bent_product",
    ),
    Mutant(
        "joined_though_read_apart",
        "attngen/plan/products.py",
        "if len(sums) == 1 and not {found.sum, p.node} & _reached(roots, sums[0]):",
        "if len(sums) == 1:",
        "a product is added to the accumulator that also stands alone",
        "tests/test_products.py::test_two_products_join_too_and_one_that_is_read_apart_does_not",
    ),
    Mutant(
        "number_of_another_adjoint",
        "attngen/plan/products.py",
        "same = Adjoint.SCORE if by_score is ONE else Adjoint.FINAL",
        "same = Adjoint.SCORE",
        "a product after a softcap is multiplied by the softcap's derivative",
        "tests/test_products.py::test_the_gradients_of_a_products_factors_multiply_the_kernels_ds_where_it_serves",
    ),
    Mutant(
        "quotient_rule_of_the_wrong_sign",
        "attngen/analysis/derivative.py",
        "return Part(share), Part(_neg(_mul(share, node)))",
        "return Part(share), Part(_mul(share, node))",
        "the derivative by a divisor is negated",
        "quotient",
    ),
    Mutant(
        "ties_counted_twice",
        "attngen/analysis/derivative.py",
        "share = _where(simple(Op.EQ, *node.args), _mul(d, _HALF), d)",
        "share = d",
        "equal operands of min and max both get the whole gradient",
        "tests/test_derivative.py::test_points_without_a_derivative_follow_the_convention",
    ),
    Mutant(
        "last_possible_key_unvisited",
        "attngen/analysis/block_range.py",
        "EVERYTHING if high is None else (Piece(his=(to_expr(high.plus(1)),)),)",
        "EVERYTHING if high is None else (Piece(his=(to_expr(high),)),)",
        "the loop ends one key before the last that a row may keep",
        "causal",
    ),
    Mutant(
        "certain_where_the_last_row_keeps",
        "attngen/analysis/block_range.py",
        "NOTHING if low is None else (Piece(his=(to_expr(low.plus(1)),)),)",
        "NOTHING if low is None else (Piece(his=(to_expr(high.plus(1)),)),)",
        "keys count as kept by all rows of a tile where its last row keeps them",
        "causal",
    ),
    Mutant(
        "strict_bound_taken_as_loose",
        "attngen/analysis/block_range.py",
        "strict = 1 if node.op is Op.LT else 0",
        "strict = 0",
        "the range of `dist < n` holds dist = n: a tile is taken as whole that is not",
        "wide_window",
    ),
    Mutant(
        "absolute_value_bounds_one_side",
        "attngen/analysis/block_range.py",
        "return solve(under[0]) & solve(forms[0].plus(end).times(-1))",
        "return solve(under[0])",
        "the range of `abs(dist) <= n` ends on one side only",
        "two_sided",
    ),
    Mutant(
        "constants_added_in_a_difference",
        "attngen/analysis/simplify.py",
        "        total = first + sign * second\n        base = simple(node.op, x, y)",
        "        total = first + second\n        base = simple(node.op, x, y)",
        "(x + 2) - (y + 3) is simplified to x - y + 5",
        "tests/test_simplify.py",
    ),
)

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
