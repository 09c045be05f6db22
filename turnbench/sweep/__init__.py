"""Several models, served and loaded in turn, as one result.

A roof: it starts `serve`, runs and the analysis as processes, and nothing imports it.

    plan.py -> runs.py -> play.py (with processes.py) -> record.py
    forecast.py -> progress.py: how long it takes
"""
