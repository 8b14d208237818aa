"""What things cost, measured side by side in one run: ``python -m bench`` or ``make bench``. See README.md beside this."""
