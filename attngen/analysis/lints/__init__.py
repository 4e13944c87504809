"""What a spec probably does not mean, one kind of mistake a module; ``analysis.lint`` gathers them."""
