"""The alternatives to the trellis, each a full coder with payloads that decode: what index coding is compared with.

Their numbers are private (65001 and up): no stream that anybody keeps is ever written by them.
"""
