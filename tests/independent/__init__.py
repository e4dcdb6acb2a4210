"""A second decoder, from docs/format.md alone: it shares no code with the package and must agree with it."""
