"""Annotation tools that bring an image and all its prompts with every request.

Each tool has one object in each photo; a request that repeats the prompts of the last one and adds
some runs the new ones alone.
"""
