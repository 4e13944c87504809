"""Emitted modules as files: where they lie, and how they are imported."""
