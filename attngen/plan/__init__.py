"""Every decision about the kernels, as data: what is computed where, which loops run, which tiles."""
