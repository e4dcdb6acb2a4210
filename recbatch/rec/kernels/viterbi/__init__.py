"""Search of the bitshift trellis: the best bit string for a block of steps, exactly."""
