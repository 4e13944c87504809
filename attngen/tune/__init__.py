"""Measuring tiles on the GPU at hand, and writing the faster ones into the table (docs/tuning.md).

searches (a kernel, a class, a head dimension)  ->  candidate tiles that fit  ->  compiled in parallel
    ->  timed in heats with the current tile, each heat into a journal  ->  rows of the table
"""
