"""The commands behind tools/*.py and the console scripts `lale-train`, `lale-test` and `lale-predict`."""
