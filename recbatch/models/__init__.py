"""Networks: integer-exact layers, the lossy VAE, and the weights that come with the package.

What a stream's entropy-coded part depends on is computed in integers (``exact``, ``prior``); analysis and synthesis
are ordinary float networks. This floor knows no coder, no stream, no file format of images and no archive; it imports
torch, so nothing below the codec imports it at module level.

A caller needs ``photo.PhotoModel`` (encode and decode with a trained model), ``weights`` (files by name or digest)
and ``lossy.LossyNet`` (training).
"""
