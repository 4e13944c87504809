"""The commands of ``attngen``, one a file, imported when they run: so ``check`` starts without torch."""
