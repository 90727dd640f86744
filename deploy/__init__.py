"""Everything that runs the pipeline and is not the pipeline: engines, images, monitoring.

Lives here: the embedded Kafka and ClickHouse (`deploy.embedded`), the Dockerfile, the server
configuration of the production shape.
Rules: imports nothing of ours from outside `deploy`; importable from `cli`, `bench` and `tests`
only, because no step of the pipeline may know which engine it talks to.
"""
