"""An independent second opinion: what should have come out, worked out in another way.

Lives here: a model of the whole pipeline that is simple and slow. It imports `schemas` for words
and limits only, never `streams`, and shares no code with it; where the two differ, one is wrong.
"""
