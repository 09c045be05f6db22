"""What can be wrong with a run: each check gives its findings with what to do, and they make the verdict.

To add a finding, write its kind and one function from evidence to findings in the module of its subject
(client, level, server, records) and name the function in the list of `verdict.py`.
"""
