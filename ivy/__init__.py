"""ivy: the software on an autonomous sensor node. Layers, each importing only what stands left of it:

constants <- types <- utils <- procedures, backend <- main <- cli
"""
