"""The coders, a file each; ``registry`` finds one by number or name."""
