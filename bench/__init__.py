"""Reproducible benchmarks, each with a correctness check: `./metering bench`. See README.md.

Lives here: the workload and what it must cost, the engines that are compared, sampling of
processes, the report. Rules: a figure is printed only beside the check of its result; whatever is
started is stopped by its own handle; nothing here is imported by the pipeline.
"""
