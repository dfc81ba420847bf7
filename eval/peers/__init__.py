"""Other systems, measured side by side with this one: an adapter and its pinned requirements for each.

Each adapter runs in an environment of its own, made by ``make bench-peers`` from the text file of its name.
"""
