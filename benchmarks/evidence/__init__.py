"""Effect of fusion on quality: planned runs on real data, made, recorded, repeated and reported in RESULTS.md.

`plan` defines the `groups` of runs, one a question. `runner` makes them in `directories`, with `shared_inputs`, and
records commit and `machine`; `rows` collects them into one CSV file, runs.csv. `group_evidence` selects the rows of a
group and sorts them into `comparisons`. `page` writes a group's page (`tables`, `pictures`), and `document` RESULTS.md
and README's table with all groups (`overview`); both include AIF against its `control`, and hand-written `prose`, whose
`figures` are computed. `branches` has its own runs: what in AIF's branches helps.
`python -m benchmarks.evidence` runs `command`.
"""
