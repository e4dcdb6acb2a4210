"""The lossless model: a multi-scale p(x) or p(x | preview) whose parameters are integers on every machine.

An image is split again and again into four phases; three of them are predicted from what is known, a stage each, by a
small exact network that gives logistic mixtures for whole planes at once. ``geometry`` says who predicts whom,
``network`` trains, ``folded`` decodes.
"""
