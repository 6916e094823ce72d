"""Gateway: what a split-TCP gateway changes around itself, with a receipt. See README.md beside this file."""
