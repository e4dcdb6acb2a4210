"""Training of the models. Nothing imports this floor but the command line.

``lossy.train_lossy(Recipe(...))`` goes from a folder of photographs to a weight file and can be stopped and run
again at any time. The parts: ``data`` (photographs as one array), ``klt`` (the start), ``loop`` (steps, schedule,
checkpoints), ``evaluate`` (held-out photographs), ``prior_fit`` (the coder's entropy tables).
"""
