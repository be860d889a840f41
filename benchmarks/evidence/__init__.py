"""What fusing does to quality: planned runs on real data, made, kept, repeated, and put into runs.csv and RESULTS.md.

`plan` says which `groups` of runs answer which question. `runner` makes them in `directories`, with the `source` they
were made from; `rows` collects them into one CSV file; `comparisons` draw from it what `tables`, `pictures`, `prose`
and `document` show. `python -m benchmarks.evidence` is `command`.
"""
