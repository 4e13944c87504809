"""From a plan to the templates' view: names first, then each part of the view by the module that makes it."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.emit.arguments import make_launch
from attngen.emit.call import checked_divisors, make_call
from attngen.emit.maths import make_maths
from attngen.emit.ranges import make_ranges
from attngen.emit.scope import make_scope
from attngen.emit.tiles import make_tiles
from attngen.emit.view import View
from attngen.plan.plan import Plan


def make_view(plan: Plan, template_texts: Iterable[str]) -> View:
    """Write out every line and name of a plan. No name will be one that ``template_texts`` use."""
    scope = make_scope(plan, template_texts)
    maths = make_maths(scope)
    ranges = make_ranges(scope)
    tiles, uses = make_tiles(scope, maths, ranges)
    launch = make_launch(scope, uses, checked_divisors(plan.ir))
    call = make_call(scope)
    return View(**vars(call), **vars(launch), **vars(tiles), **vars(ranges), **vars(maths))
