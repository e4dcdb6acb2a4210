"""Scores of a trellis step: how well each of the 256 codewords serves the step's dimensions."""
