"""From a plan to the templates' view: names first, then each part of the view by the module that makes it."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.emit.arguments import make_launch
from attngen.emit.call import checked_divisors, make_call
from attngen.emit.dense import make_dense, without_tile
from attngen.emit.far import FarUses, make_far
from attngen.emit.guards import make_guards
from attngen.emit.hopper import make_hopper
from attngen.emit.hopper_backward import make_hopper_backward
from attngen.emit.hopper_wide import make_hopper_wide
from attngen.emit.learned import make_learned
from attngen.emit.maths import make_maths
from attngen.emit.near import listed_maths, listed_uses, make_near
from attngen.emit.picks import make_picks
from attngen.emit.products import make_products
from attngen.emit.ranges import make_ranges
from attngen.emit.scope import make_scope
from attngen.emit.sink import make_sink
from attngen.emit.tiles import make_tiles
from attngen.emit.view import View
from attngen.emit.weights import make_weights
from attngen.plan.plan import Plan


def make_view(plan: Plan, template_texts: Iterable[str]) -> View:
    """Write out every line and name of a plan. No name will be one that ``template_texts`` use."""
    scope = make_scope(plan, template_texts)
    maths = make_maths(scope)
    ranges = make_ranges(scope)
    far, far_uses = make_far(scope)
    weights = make_weights(scope, maths)
    learned, learned_uses = make_learned(scope)
    sink, sink_uses = make_sink(scope)
    if learned.sink_reads:
        learned_uses |= sink_uses
    picks = make_picks(scope, maths)
    products, product_uses = make_products(scope, weights)
    before, after = (weights, ranges, picks, learned, far), (sink, sink_uses, learned_uses, product_uses)
    tiles, uses = make_tiles(scope, maths, *before, far_uses, *after)
    dense, own_maths = make_dense(scope, maths)
    own_uses, near = FarUses() if plan.far_in_gluon is None else far_uses, make_near(scope)
    if near is not None:
        own_maths, own_uses = listed_maths(maths, far), listed_uses(near, far_uses)
    own_tiles = tiles
    if own_maths is not maths or own_uses != far_uses:
        held = () if near is None else near.names
        own_tiles = without_tile(make_tiles(scope, own_maths, *before, own_uses, *after, held)[0], dense)
    uses |= far_uses.all | learned_uses | sink_uses | product_uses.all
    launch = make_launch(scope, uses, checked_divisors(plan.ir))
    call, guards = make_call(scope), make_guards(plan)
    forward = make_hopper(scope, own_maths, own_tiles, ranges, launch, sink, dense, near)
    hopper = (
        forward,
        make_hopper_backward(scope, own_maths, own_tiles, ranges, launch, learned, sink, dense, near),
        make_hopper_wide(scope, own_maths, own_tiles, ranges, forward),
    )
    own = (sink, products, learned, far, tiles, ranges, picks, weights, maths)
    parts = (call, launch, *hopper, guards, *own)
    return View(**{name: value for part in parts for name, value in vars(part).items()})
