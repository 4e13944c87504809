"""The typed intermediate representation: what a spec means, with every name resolved."""
