"""What fusing does to quality: planned runs on real data, made, kept, repeated, and put into runs.csv and RESULTS.md.

`plan` says which `groups` of runs answer which question. `runner` makes them in `directories`, with `shared_inputs`
and the `source` they were made from; `rows` collects them into one CSV file. `group_evidence` draws from it what there
is of a group, sorted into `comparisons`; `page` shows all of that (`tables`, `pictures`), `document` what RESULTS.md
and README show of every group (`overview`), both with AIF against its `control` and people's `prose`.
`python -m benchmarks.evidence` is `command`.
"""
