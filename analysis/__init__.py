"""What it means: metrics, statistics, verdict, tables and the report.

`python -m analysis RUN` is the way in; every module below it is a plain function over `Study`.
"""
