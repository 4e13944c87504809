"""From a plan to the text of a module: expressions, statements, the templates' view, rendering."""
