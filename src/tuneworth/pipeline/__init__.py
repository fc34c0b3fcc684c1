"""The run from data to report: one module a stage, `running` puts them in order."""
